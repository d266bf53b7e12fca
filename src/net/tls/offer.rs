//! What is offered to clients: TLS versions and cipher suites, by the names that Go and IANA have
//! for them. Pure.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ProtocolVersion, SupportedProtocolVersion};

/// Versions and suites to serve. The default is all there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Suites of TLS 1.2; without any the version is not spoken.
    tls12: Vec<CipherSuite>,
    /// Whether TLS 1.3 is spoken, with all its suites: nobody can choose among those.
    tls13: bool,
}

/// Which flag asks for what cannot be, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Without its dashes.
    pub flag: &'static str,
    /// What it was given.
    pub value: String,
    /// Half a sentence.
    pub reason: String,
}

/// Go's names of the newer version; the older one is the least there is.
const NEWEST: &str = "TLS1.3";

/// The older names that two suites have.
const ALIASES: [(&str, &str); 2] = [
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    ),
];

const BROKEN: &str = "insecure cipher, not supported";
const NO_SECRECY: &str = "no forward secrecy, not supported";
const CBC: &str = "CBC cipher suites are not supported";

/// What Go has and this program has not.
const NOT_OFFERED: [(&str, &str); 14] = [
    ("TLS_RSA_WITH_RC4_128_SHA", BROKEN),
    ("TLS_RSA_WITH_3DES_EDE_CBC_SHA", BROKEN),
    ("TLS_RSA_WITH_AES_128_CBC_SHA", NO_SECRECY),
    ("TLS_RSA_WITH_AES_256_CBC_SHA", NO_SECRECY),
    ("TLS_RSA_WITH_AES_128_CBC_SHA256", NO_SECRECY),
    ("TLS_RSA_WITH_AES_128_GCM_SHA256", NO_SECRECY),
    ("TLS_RSA_WITH_AES_256_GCM_SHA384", NO_SECRECY),
    ("TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", BROKEN),
    ("TLS_ECDHE_RSA_WITH_RC4_128_SHA", BROKEN),
    ("TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", BROKEN),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", CBC),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", CBC),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", CBC),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", CBC),
];

/// The same with a longer hash.
const NOT_OFFERED_SHA256: [&str; 2] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

impl Default for Offer {
    fn default() -> Offer {
        Offer {
            tls12: suites_of(ProtocolVersion::TLSv1_2).collect(),
            tls13: true,
        }
    }
}

impl Offer {
    /// From `--tls-min-version`, `--tls-max-version` and `--listen-cipher-suites`. Versions are
    /// `TLS1.2`, `TLS1.3` or nothing, which is no bound.
    pub fn new(min: &str, max: &str, names: &[String]) -> Result<Offer, Refused> {
        let refuse = |flag, value: &str, reason: &str| {
            Err(Refused {
                flag,
                value: value.to_owned(),
                reason: reason.to_owned(),
            })
        };
        // The names sort as the versions do; an empty maximum is no bound.
        if !max.is_empty() && min > max {
            let reason = format!("above --tls-max-version={max}");
            return refuse("tls-min-version", min, &reason);
        }
        let suites = "listen-cipher-suites";
        if min == NEWEST && !names.is_empty() {
            let reason = "TLS 1.3 cipher suites are not configurable";
            return refuse(suites, &names.join(","), reason);
        }
        let all = Offer::default();
        let mut chosen = Vec::new();
        for name in names {
            match suite(name) {
                Ok(suite) => chosen.push(suite),
                Err(reason) => return refuse(suites, name, reason),
            }
        }
        let tls13 = max.is_empty() || max == NEWEST;
        let tls12 = match (min == NEWEST, names.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => all.tls12,
            (false, false) => {
                let is_chosen = |suite: &CipherSuite| chosen.contains(suite);
                all.tls12.into_iter().filter(is_chosen).collect()
            }
        };
        if tls12.is_empty() && !tls13 {
            let reason = format!("none is a TLS 1.2 suite, and --tls-max-version={max}");
            return refuse(suites, &names.join(","), &reason);
        }
        Ok(Offer { tls12, tls13 })
    }

    /// The cryptography that has the suites offered, and no others.
    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| {
            let newest = suite.version().version == ProtocolVersion::TLSv1_3;
            newest && self.tls13 || self.tls12.contains(&suite.suite())
        });
        Arc::new(provider)
    }

    /// The versions offered; never none.
    pub(super) fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let tls13 = self.tls13.then_some(&TLS13);
        let tls12 = (!self.tls12.is_empty()).then_some(&TLS12);
        tls13.into_iter().chain(tls12).collect()
    }
}

fn suites_of(version: ProtocolVersion) -> impl Iterator<Item = CipherSuite> {
    let all = aws_lc_rs::DEFAULT_CIPHER_SUITES.iter();
    all.filter(move |suite| suite.version().version == version)
        .map(|suite| suite.suite())
}

/// The suite of a name, or why there is none.
fn suite(name: &str) -> Result<CipherSuite, &'static str> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    let full = alias.map_or(name, |(_, full)| full);
    let named = |suite: &CipherSuite| suite.as_str() == Some(full);
    if let Some(found) = suites_of(ProtocolVersion::TLSv1_2).find(named) {
        return Ok(found);
    }
    // What IANA calls TLS_AES_128_GCM_SHA256 is TLS13_AES_128_GCM_SHA256 here.
    let newest = full.strip_prefix("TLS_").unwrap_or_default();
    let named = |suite: &CipherSuite| {
        suite.as_str().and_then(|own| own.strip_prefix("TLS13_")) == Some(newest)
    };
    if let Some(found) = suites_of(ProtocolVersion::TLSv1_3).find(named) {
        return Ok(found);
    }
    if NOT_OFFERED_SHA256.contains(&name) {
        return Err(CBC);
    }
    let known = NOT_OFFERED.iter().find(|(known, _)| *known == name);
    Err(known.map_or("unknown cipher suite", |(_, why)| why))
}

#[cfg(test)]
mod tests {
    use super::{ALIASES, NOT_OFFERED, NOT_OFFERED_SHA256, Offer, Refused, suite};
    use rustls::{CipherSuite, ProtocolVersion};

    fn offer(min: &str, max: &str, names: &[&str]) -> Result<Offer, Refused> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Offer::new(min, max, &names)
    }

    fn versions(offer: &Offer) -> Vec<ProtocolVersion> {
        offer.versions().iter().map(|each| each.version).collect()
    }

    const OLD: &str = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
    const NEW: &str = "TLS_AES_128_GCM_SHA256";

    #[test]
    fn versions_are_a_range() {
        const V2: ProtocolVersion = ProtocolVersion::TLSv1_2;
        const V3: ProtocolVersion = ProtocolVersion::TLSv1_3;
        for (min, max, expected) in [
            ("", "", &[V3, V2][..]),
            ("TLS1.2", "", &[V3, V2]),
            ("TLS1.2", "TLS1.3", &[V3, V2]),
            ("", "TLS1.2", &[V2]),
            ("TLS1.2", "TLS1.2", &[V2]),
            ("TLS1.3", "", &[V3]),
            ("TLS1.3", "TLS1.3", &[V3]),
        ] {
            let offer = offer(min, max, &[]).unwrap();
            assert_eq!(versions(&offer), expected, "{min}..{max}");
            let spoken =
                |suite: &&rustls::SupportedCipherSuite| expected.contains(&suite.version().version);
            let provider = offer.provider();
            assert_eq!(
                provider.cipher_suites.iter().filter(spoken).count(),
                provider.cipher_suites.len()
            );
            assert_eq!(
                provider.cipher_suites.len(),
                3 * (expected.len() + usize::from(expected.contains(&V2)))
            );
        }
        let refused = offer("TLS1.3", "TLS1.2", &[]).unwrap_err();
        assert_eq!(refused.flag, "tls-min-version");
        assert_eq!(refused.reason, "above --tls-max-version=TLS1.2");
    }

    #[test]
    fn suites_are_those_of_the_list() {
        let one = offer("TLS1.2", "", &[OLD, NEW, OLD]).unwrap();
        assert_eq!(
            one.tls12,
            [CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
        );
        assert_eq!(one.provider().cipher_suites.len(), 4);
        // With none of TLS 1.2 that version has nothing to speak with.
        let none = offer("", "", &[NEW]).unwrap();
        assert_eq!(versions(&none), [ProtocolVersion::TLSv1_3]);
        let refused = offer("", "TLS1.2", &[NEW]).unwrap_err();
        assert_eq!(refused.flag, "listen-cipher-suites");
        assert!(refused.reason.contains("TLS1.2"), "{}", refused.reason);
        for max in ["", "TLS1.3"] {
            let refused = offer("TLS1.3", max, &[OLD]).unwrap_err();
            assert_eq!(refused.flag, "listen-cipher-suites");
        }
    }

    #[test]
    fn every_name_of_go_is_known() {
        for version in [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3] {
            for own in super::suites_of(version) {
                let name = own.as_str().unwrap().replace("TLS13_", "TLS_");
                assert_eq!(suite(&name), Ok(own));
            }
        }
        for (alias, full) in ALIASES {
            assert_eq!(suite(alias), suite(full));
            assert!(suite(alias).is_ok());
        }
        for name in NOT_OFFERED
            .map(|(name, _)| name)
            .iter()
            .chain(&NOT_OFFERED_SHA256)
        {
            assert!(
                suite(name).unwrap_err().ends_with("not supported"),
                "{name}"
            );
        }
        for name in [
            "",
            "TLS_",
            "TLS13_AES_128_GCM_SHA256",
            "AES_128_GCM_SHA256",
            "ECDHE-RSA-AES128-GCM-SHA256",
            "tls_aes_128_gcm_sha256",
        ] {
            assert_eq!(suite(name), Err("unknown cipher suite"), "{name}");
        }
    }
}
