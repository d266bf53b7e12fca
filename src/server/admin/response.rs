//! Constructors of admin responses, and a reader of query parameters.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Returns 404 with the text of Go's HTTP server.
pub(in crate::server) fn not_found() -> Response<Bytes> {
    plain(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Returns a permanent redirect to the path `to`.
pub(in crate::server) fn redirect(to: &'static str) -> Response<Bytes> {
    let mut response = plain(StatusCode::MOVED_PERMANENTLY, "");
    response
        .headers_mut()
        .insert(header::LOCATION, HeaderValue::from_static(to));
    response
}

/// Returns a response of plain text.
pub(in crate::server) fn plain(status: StatusCode, text: &str) -> Response<Bytes> {
    response(status, TEXT, Bytes::copy_from_slice(text.as_bytes()))
}

/// Returns a response with any content type.
pub(in crate::server) fn response(
    status: StatusCode,
    content_type: HeaderValue,
    body: Bytes,
) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// Returns the first value of the query parameter `name`. Does not decode percent-encoding: names
/// and values of the admin interface contain no such characters.
pub(in crate::server) fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(each, _)| *each == name)?;
    Some(value)
}
