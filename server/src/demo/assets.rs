//! The page and the browser client, embedded at build time. Nothing here comes from another network.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rust_embed::{EmbeddedFile, RustEmbed};

/// What `build.rs` copied from `client-js/dist`, or its stand-ins that say how to build it.
#[derive(RustEmbed)]
#[folder = "$OUT_DIR/assets"]
struct Assets;

/// Scripts, styles and connections only of this server, on any of its ports (WebTransport has its own); images may be inline.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; connect-src 'self' https: ws: wss:; img-src 'self' data:; \
     object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// A route for `/throughline.js`, the browser client, for pages of one's own.
pub fn client<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/throughline.js", get(|headers: HeaderMap| async move { serve("throughline.js", &headers) }))
}

/// Routes for `/`, the page's own files beside it, and `/throughline.js`, the browser client.
pub fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(|headers: HeaderMap| async move { serve("demo/index.html", &headers) }))
        .route("/{file}", get(file))
}

async fn file(Path(file): Path<String>, headers: HeaderMap) -> Response {
    // The client is one of the library's files, everything else one of the page's. A segment holds no slash, and the
    // embedded names are a closed set, so no path leads elsewhere.
    if file.starts_with("throughline.js") { serve(&file, &headers) } else { serve(&format!("demo/{file}"), &headers) }
}

fn serve(path: &str, headers: &HeaderMap) -> Response {
    let Some(file) = Assets::get(path) else {
        return (StatusCode::NOT_FOUND, "not found\n").into_response();
    };
    let tag = entity_tag(&file);
    let is_known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|known| known.to_str().ok())
        .is_some_and(|known| known == "*" || known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let kind = content_type(path, &file);
        ([(header::CONTENT_TYPE, kind)], file.data.into_owned()).into_response()
    };
    let out = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        out.insert(header::ETAG, tag);
    }
    // Names do not change with the contents, so a browser asks each time; the tag makes the answer short.
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    out.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    out.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if path.ends_with(".html") {
        let policy = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
        out.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// A strong tag: the beginning of the content's SHA-256.
fn entity_tag(file: &EmbeddedFile) -> String {
    let hash = file.metadata.sha256_hash();
    let hex: String = hash[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

fn content_type(path: &str, file: &EmbeddedFile) -> String {
    match path.rsplit('.').next() {
        Some("map") => "application/json".to_owned(),
        Some("html" | "css" | "js") => format!("{}; charset=utf-8", file.metadata.mimetype()),
        _ => file.metadata.mimetype().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn fetch(path: &str, tag: Option<&str>) -> Response {
        let mut request = Request::get(path);
        if let Some(tag) = tag {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        let request = request.body(Body::empty()).expect("a request");
        assets::<()>().oneshot(request).await.expect("infallible")
    }

    #[tokio::test]
    async fn page_and_client_are_there_with_their_types() {
        for (path, kind) in [("/", "text/html; charset=utf-8"), ("/throughline.js", "text/javascript; charset=utf-8")] {
            let response = fetch(path, None).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], kind);
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
        }
    }

    #[tokio::test]
    async fn the_client_is_there_without_the_page() {
        let fetch = async |path: &str| {
            let request = Request::get(path).body(Body::empty()).expect("a request");
            client::<()>().oneshot(request).await.expect("infallible").status()
        };
        assert_eq!(fetch("/throughline.js").await, StatusCode::OK);
        assert_eq!(fetch("/").await, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_known_tag_is_answered_without_a_body() {
        let first = fetch("/", None).await;
        let tag = first.headers()[header::ETAG].to_str().expect("ASCII").to_owned();
        for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            assert_eq!(fetch("/", Some(&known)).await.status(), StatusCode::NOT_MODIFIED, "{known}");
        }
        assert_eq!(fetch("/", Some("\"x\"")).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn what_is_not_embedded_is_not_found() {
        for path in ["/nothing", "/..%2fCargo.toml", "/%2e%2e%2f%2e%2e%2fsecret", "/throughline.js.nothing"] {
            assert_eq!(fetch(path, None).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
