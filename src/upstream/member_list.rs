//! The endpoints that a cluster's member list names: every client URL of every member that serves
//! clients.

use crate::upstream::endpoint::Endpoint;
use crate::wire::pb::etcdserverpb::Member;

/// What a member list says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MemberList {
    /// Each once, in the order of the members, every scheme `Plain` or `Tls`.
    pub endpoints: Vec<Endpoint>,
    /// Client URLs that name no endpoint.
    pub unusable: Vec<String>,
}

impl MemberList {
    /// Of these members. One that has not started has no name yet, and a learner serves few calls:
    /// both are left out.
    pub fn of(members: &[Member]) -> MemberList {
        let mut roster = MemberList::default();
        let serving = members
            .iter()
            .filter(|member| !member.name.is_empty() && !member.is_learner);
        for url in serving.flat_map(|member| &member.client_urls) {
            // etcd's URLs say which sockets speak TLS.
            match Endpoint::parse(url).map(|e| e.with_default_tls(false)) {
                Ok(endpoint) if roster.endpoints.contains(&endpoint) => {}
                Ok(endpoint) => roster.endpoints.push(endpoint),
                Err(_) => roster.unusable.push(url.clone()),
            }
        }
        roster
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
    fn members_that_serve_are_listed_with_all_their_urls() {
        let roster = MemberList::of(&[
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
        let endpoints: Vec<String> = roster.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(
            endpoints,
            [
                "http://10.0.0.1:2379",
                "https://a.example:2379",
                "unix:///run/etcd"
            ]
        );
        assert_eq!(
            roster.unusable,
            ["ftp://10.0.0.9", "http://10.0.0.4:2379/v3"]
        );
        assert_eq!(MemberList::of(&[]), MemberList::default());
    }
}
