//! The status as a page for people at `/proxy/`: one file that shows what `/proxy/status` says, and reads
//! nothing else. What it shows is text to it whatever it is; where that failed, its policy would still let no
//! script run but its own and nothing be asked of anybody but this proxy.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use crate::server::admin::response::made;

const PAGE: &str = include_str!("status.html");

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// What the page may do, and who may do what with it.
static HEADERS: LazyLock<[(HeaderName, String); 5]> = LazyLock::new(|| {
    let (style, script) = (inside("style"), inside("script"));
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(style),
        hash(script)
    );
    [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::X_FRAME_OPTIONS, "DENY".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ]
});

/// The page.
pub(in crate::server) fn page() -> Response<Bytes> {
    let mut page = made(StatusCode::OK, HTML, Bytes::from_static(PAGE.as_bytes()));
    for (name, value) in &*HEADERS {
        // They are written here, of printable characters.
        if let Ok(value) = HeaderValue::from_str(value) {
            page.headers_mut().insert(name.clone(), value);
        }
    }
    page
}

/// What stands between the tags of the page's only element of this kind.
fn inside(tag: &str) -> &'static str {
    let begun = PAGE.split_once(&format!("<{tag}>"));
    let ended = begun.and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
    ended.map_or("", |(inside, _)| inside)
}

/// As a policy names what may be used.
fn hash(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    format!("'sha256-{}'", BASE64_STANDARD.encode(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_and_makes_no_markup() {
        for tag in ["style", "script"] {
            assert!(inside(tag).len() > 1_000, "{tag}");
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1, "{tag}");
        }
        let markup = [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "Function(",
        ];
        // A style or a handler in an attribute would not be taken either.
        let elsewhere = [
            " style=",
            " onclick=",
            " onload=",
            " src=",
            "@import",
            "url(",
        ];
        for word in markup.into_iter().chain(elsewhere) {
            assert!(!PAGE.contains(word), "{word}");
        }
        // The one address is the name of a kind of element.
        assert_eq!(PAGE.matches("://").count(), 1);
        assert_eq!(page().headers().len(), 6);
    }
}
