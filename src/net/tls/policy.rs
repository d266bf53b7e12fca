//! The TLS versions and cipher suites that clients may use, by the names of Go and IANA. Pure.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ProtocolVersion, SupportedProtocolVersion};

/// Accepted TLS versions and cipher suites. By default, all that are supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPolicy {
    /// Cipher suites of TLS 1.2. If empty, TLS 1.2 is disabled.
    tls12: Vec<CipherSuite>,
    /// Whether TLS 1.3 is enabled. Its cipher suites are not configurable.
    tls13: bool,
}

/// A flag value that cannot be applied, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// The flag, without its dashes.
    pub flag: &'static str,
    /// The value of the flag.
    pub value: String,
    /// Reason, as half a sentence.
    pub reason: String,
}

/// Name of TLS 1.3 in the flags of Go. The other accepted name is that of the minimum version.
const TLS13_NAME: &str = "TLS1.3";

/// Older names of two cipher suites.
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

const UNKNOWN: &str = "unknown cipher suite";
const BROKEN: &str = "insecure cipher, not supported";
const NO_SECRECY: &str = "no forward secrecy, not supported";
const CBC: &str = "CBC cipher suites are not supported";

/// Cipher suites that Go supports and this program does not, and the reason.
const NOT_SUPPORTED: [(&str, &str); 14] = [
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

/// CBC cipher suites with a longer hash, not supported either.
const NOT_SUPPORTED_SHA256: [&str; 2] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

impl Default for TlsPolicy {
    fn default() -> TlsPolicy {
        TlsPolicy {
            tls12: suites_of(ProtocolVersion::TLSv1_2).collect(),
            tls13: true,
        }
    }
}

impl TlsPolicy {
    /// Creates a policy from `--tls-min-version`, `--tls-max-version` and `--listen-cipher-suites`.
    /// A version is `TLS1.2`, `TLS1.3`, or empty for no bound. Also returns the suites of Go in the
    /// list that are not supported, each with the reason.
    ///
    /// # Errors
    /// The flags contradict each other, a cipher suite is unknown, or none is supported.
    pub fn new(
        min: &str,
        max: &str,
        names: &[String],
    ) -> Result<(TlsPolicy, Vec<String>), PolicyError> {
        let refuse = |flag, value: &str, reason: &str| {
            Err(PolicyError {
                flag,
                value: value.to_owned(),
                reason: reason.to_owned(),
            })
        };
        // The names sort like the versions. An empty maximum is no bound.
        if !max.is_empty() && min > max {
            let reason = format!("above --tls-max-version={max}");
            return refuse("tls-min-version", min, &reason);
        }
        let suites = "listen-cipher-suites";
        if min == TLS13_NAME && !names.is_empty() {
            let reason = "TLS 1.3 cipher suites are not configurable";
            return refuse(suites, &names.join(","), reason);
        }
        let all = TlsPolicy::default();
        let (mut chosen, mut left_out) = (Vec::new(), Vec::new());
        for name in names {
            match suite(name) {
                Ok(suite) => chosen.push(suite),
                Err(UNKNOWN) => return refuse(suites, name, UNKNOWN),
                Err(reason) => left_out.push(format!("{name} ({reason})")),
            }
        }
        if chosen.is_empty() && !left_out.is_empty() {
            let reason = format!("none is supported: {}", left_out.join(", "));
            return refuse(suites, &names.join(","), &reason);
        }
        let tls13 = max.is_empty() || max == TLS13_NAME;
        let tls12 = match (min == TLS13_NAME, names.is_empty()) {
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
        Ok((TlsPolicy { tls12, tls13 }, left_out))
    }

    /// Returns the crypto provider with only the accepted cipher suites.
    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| {
            let tls13 = suite.version().version == ProtocolVersion::TLSv1_3;
            tls13 && self.tls13 || self.tls12.contains(&suite.suite())
        });
        Arc::new(provider)
    }

    /// Returns the accepted versions, the newest first. Never empty.
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

/// Returns the cipher suite with this name, or the reason why there is none.
fn suite(name: &str) -> Result<CipherSuite, &'static str> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    let full = alias.map_or(name, |(_, full)| full);
    let named = |suite: &CipherSuite| suite.as_str() == Some(full);
    if let Some(found) = suites_of(ProtocolVersion::TLSv1_2).find(named) {
        return Ok(found);
    }
    // The IANA name TLS_AES_128_GCM_SHA256 is TLS13_AES_128_GCM_SHA256 in rustls.
    let tls13 = full.strip_prefix("TLS_").unwrap_or_default();
    let named = |suite: &CipherSuite| {
        suite.as_str().and_then(|own| own.strip_prefix("TLS13_")) == Some(tls13)
    };
    if let Some(found) = suites_of(ProtocolVersion::TLSv1_3).find(named) {
        return Ok(found);
    }
    if NOT_SUPPORTED_SHA256.contains(&name) {
        return Err(CBC);
    }
    let known = NOT_SUPPORTED.iter().find(|(known, _)| *known == name);
    Err(known.map_or(UNKNOWN, |(_, why)| why))
}

#[cfg(test)]
mod tests {
    use super::{ALIASES, NOT_SUPPORTED, NOT_SUPPORTED_SHA256, PolicyError, TlsPolicy, suite};
    use rustls::{CipherSuite, ProtocolVersion};

    fn policy(min: &str, max: &str, names: &[&str]) -> Result<TlsPolicy, PolicyError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        TlsPolicy::new(min, max, &names).map(|(policy, _)| policy)
    }

    fn versions(policy: &TlsPolicy) -> Vec<ProtocolVersion> {
        policy.versions().iter().map(|each| each.version).collect()
    }

    const OLD: &str = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
    const NEW: &str = "TLS_AES_128_GCM_SHA256";
    const OTHER: &str = "TLS_RSA_WITH_AES_128_CBC_SHA";

    #[test]
    fn minimum_and_maximum_version_form_a_range() {
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
            let policy = policy(min, max, &[]).unwrap();
            assert_eq!(versions(&policy), expected, "{min}..{max}");
            let spoken =
                |suite: &&rustls::SupportedCipherSuite| expected.contains(&suite.version().version);
            let provider = policy.provider();
            assert_eq!(
                provider.cipher_suites.iter().filter(spoken).count(),
                provider.cipher_suites.len()
            );
            assert_eq!(
                provider.cipher_suites.len(),
                3 * (expected.len() + usize::from(expected.contains(&V2)))
            );
        }
        let refused = policy("TLS1.3", "TLS1.2", &[]).unwrap_err();
        assert_eq!(refused.flag, "tls-min-version");
        assert_eq!(refused.reason, "above --tls-max-version=TLS1.2");
    }

    #[test]
    fn only_listed_suites_are_accepted() {
        let one = policy("TLS1.2", "", &[OLD, NEW, OLD]).unwrap();
        assert_eq!(
            one.tls12,
            [CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
        );
        assert_eq!(one.provider().cipher_suites.len(), 4);
        // Without a cipher suite of TLS 1.2, that version is disabled.
        let none = policy("", "", &[NEW]).unwrap();
        assert_eq!(versions(&none), [ProtocolVersion::TLSv1_3]);
        let refused = policy("", "TLS1.2", &[NEW]).unwrap_err();
        assert_eq!(refused.flag, "listen-cipher-suites");
        assert!(refused.reason.contains("TLS1.2"), "{}", refused.reason);
        // Suites that are not supported are left out. Without them one must remain.
        let names = [OLD, OTHER].map(str::to_owned);
        let (some, left_out) = TlsPolicy::new("", "", &names).unwrap();
        assert_eq!((some, left_out.len()), (policy("", "", &[OLD]).unwrap(), 1));
        assert!(left_out[0].contains(OTHER), "{left_out:?}");
        for names in [&[OTHER][..], &[OLD, "TLS_UNKNOWN"]] {
            let refused = policy("", "", names).unwrap_err();
            assert_eq!(refused.flag, "listen-cipher-suites", "{names:?}");
        }
        for max in ["", "TLS1.3"] {
            let refused = policy("TLS1.3", max, &[OLD]).unwrap_err();
            assert_eq!(refused.flag, "listen-cipher-suites");
        }
    }

    #[test]
    fn every_suite_name_of_go_is_known() {
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
        for name in NOT_SUPPORTED
            .map(|(name, _)| name)
            .iter()
            .chain(&NOT_SUPPORTED_SHA256)
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
