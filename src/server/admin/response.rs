//! Constructors of admin responses, and a reader of query parameters.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");

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

/// Returns a response of plain text, which browsers do not take for another type.
pub(in crate::server) fn plain(status: StatusCode, text: &str) -> Response<Bytes> {
    let mut response = response(status, TEXT, Bytes::copy_from_slice(text.as_bytes()));
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    response
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

/// Returns the first value of the query parameter `name`; `None` if there is no `name=`. See
/// [`query_values`].
pub(in crate::server) fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(each, _)| *each == name)?;
    Some(value)
}

/// Returns the values of the query parameter `name`, empty for one without a value. Does not decode
/// percent-encoding: names and values of the admin interface contain no such characters.
pub(in crate::server) fn query_values<'a>(
    query: &'a str,
    name: &'a str,
) -> impl Iterator<Item = &'a str> {
    query.split('&').filter_map(move |pair| {
        let (each, value) = pair.split_once('=').unwrap_or((pair, ""));
        (each == name).then_some(value)
    })
}
