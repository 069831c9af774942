//! `/docs`: the page on which the API's document is read and its operations are tried (Scalar).
//!
//! All of it comes from this binary, and all of its URLs are relative, so that it also works behind
//! a proxy that adds a prefix to the path.

use std::sync::LazyLock;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use http::StatusCode;

/// Scripts and styles come from this binary alone. The page styles itself with inline styles.
pub(super) const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

static SCALAR: LazyLock<Bytes> = LazyLock::new(|| {
    scalar_api_reference::get_asset("scalar.js")
        .unwrap_or_default()
        .into()
});

/// The page and its assets, and the redirects that lead to it.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let asset = |path: &'static str, media_type: &'static str, read: fn() -> Bytes| {
        let headers = [
            (header::CONTENT_TYPE, media_type),
            // Short, so that the parts of the page are of one release.
            (header::CACHE_CONTROL, "private, max-age=60"),
        ];
        Router::new().route(path, get(move || async move { (headers, read()) }))
    };
    Router::new()
        .route("/", get(lead_to_page))
        .route("/docs", get(lead_to_page))
        .merge(asset("/docs/", "text/html; charset=utf-8", || {
            Bytes::from_static(include_bytes!("index.html"))
        }))
        .merge(asset("/docs/page.css", "text/css", || {
            Bytes::from_static(include_bytes!("page.css"))
        }))
        .merge(asset("/docs/page.js", "text/javascript", || {
            Bytes::from_static(include_bytes!("page.js"))
        }))
        .merge(asset("/docs/scalar.js", "text/javascript", || {
            SCALAR.clone()
        }))
}

/// Redirects to `/docs/` from a path next to it.
async fn lead_to_page() -> impl IntoResponse {
    (
        StatusCode::TEMPORARY_REDIRECT,
        [(header::LOCATION, "docs/")],
    )
}
