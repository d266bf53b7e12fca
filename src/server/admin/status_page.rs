//! Status page at `/proxy/`: one HTML file that displays `/proxy/status` and requests nothing else.
//!
//! The script inserts all values as text, never as markup. If that failed, the content security
//! policy would still allow only the script of the file itself, and requests only to this proxy.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use crate::server::admin::response::response;

const HTML_FILE: &str = include_str!("status.html");

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Response headers that restrict the page and its use by other sites.
static HEADERS: LazyLock<[(HeaderName, String); 5]> = LazyLock::new(|| {
    let (style, script) = (content_of("style"), content_of("script"));
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        csp_hash(style),
        csp_hash(script)
    );
    [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::X_FRAME_OPTIONS, "DENY".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ]
});

/// Returns the page with its security headers.
pub(in crate::server) fn status_page() -> Response<Bytes> {
    let mut response = response(
        StatusCode::OK,
        CONTENT_TYPE,
        Bytes::from_static(HTML_FILE.as_bytes()),
    );
    for (name, value) in &*HEADERS {
        // The values above contain only printable characters.
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name.clone(), value);
        }
    }
    response
}

/// Returns the text between the tags of the page's only element `tag`.
fn content_of(tag: &str) -> &'static str {
    let after_start = HTML_FILE.split_once(&format!("<{tag}>"));
    let content = after_start.and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
    content.map_or("", |(content, _)| content)
}

/// Returns the hash source of an inline style or script for a content security policy.
fn csp_hash(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    format!("'sha256-{}'", BASE64_STANDARD.encode(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_one_file_and_creates_no_markup() {
        for tag in ["style", "script"] {
            assert!(content_of(tag).len() > 1_000, "{tag}");
            assert_eq!(HTML_FILE.matches(&format!("<{tag}")).count(), 1, "{tag}");
        }
        let markup = [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "Function(",
        ];
        // The policy would also block styles and handlers in attributes.
        let attributes = [
            " style=",
            " onclick=",
            " onload=",
            " src=",
            "@import",
            "url(",
        ];
        for text in markup.into_iter().chain(attributes) {
            assert!(!HTML_FILE.contains(text), "{text}");
        }
        // The only URL is an XML namespace.
        assert_eq!(HTML_FILE.matches("://").count(), 1);
        assert_eq!(status_page().headers().len(), 6);
    }
}
