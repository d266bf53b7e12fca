//! Endpoints of a member list of etcd: every client URL of every member that serves clients.

use crate::upstream::endpoint::Endpoint;
use crate::wire::pb::etcdserverpb::Member;

/// Endpoints of a member list.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MemberList {
    /// Each endpoint once, in the order of the members. Every scheme is `Plain` or `Tls`.
    pub endpoints: Vec<Endpoint>,
    /// Client URLs that are not valid endpoints.
    pub unusable: Vec<String>,
}

impl MemberList {
    /// Collects the endpoints of the members. A member without a name has not started, and a
    /// learner serves few calls: both are skipped.
    pub fn from_members(members: &[Member]) -> MemberList {
        let mut list = MemberList::default();
        let serving = members
            .iter()
            .filter(|member| !member.name.is_empty() && !member.is_learner);
        for url in serving.flat_map(|member| &member.client_urls) {
            // The scheme of a client URL shows whether the socket uses TLS.
            match Endpoint::parse(url).map(|e| e.with_default_tls(false)) {
                Ok(endpoint) if list.endpoints.contains(&endpoint) => {}
                Ok(endpoint) => list.endpoints.push(endpoint),
                Err(_) => list.unusable.push(url.clone()),
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, urls: &[&str], is_learner: bool) -> Member {
        Member {
            name: name.to_owned(),
            client_urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            is_learner,
            ..Member::default()
        }
    }

    #[test]
    fn serving_members_are_listed_with_all_their_urls() {
        let list = MemberList::from_members(&[
            member(
                "a",
                &["http://10.0.0.1:2379", "https://a.example:2379"],
                false,
            ),
            member("", &["http://10.0.0.2:2379"], false),
            member("c", &["http://10.0.0.3:2379"], true),
            member("d", &["http://10.0.0.1:2379", "unix:///run/etcd"], false),
            member("e", &[], false),
            member("f", &["ftp://10.0.0.9", "http://10.0.0.4:2379/v3"], false),
        ]);
        let endpoints: Vec<String> = list.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(
            endpoints,
            [
                "http://10.0.0.1:2379",
                "https://a.example:2379",
                "unix:///run/etcd"
            ]
        );
        assert_eq!(list.unusable, ["ftp://10.0.0.9", "http://10.0.0.4:2379/v3"]);
        assert_eq!(MemberList::from_members(&[]), MemberList::default());
    }
}
