//! The document, made of the code: for people, and for what makes clients.

use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use http::header;
use serde_json::{Value, json};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{OpenApi, Server};
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Where the commands are entered.
pub(super) fn begin(base: &str) -> OpenApi {
    #[derive(utoipa::OpenApi)]
    #[openapi(info(
        title = "Throughline",
        description = "For back ends: what happens in channels, and who is there. Everything is asked for with POST and JSON, with a key in `Authorization: Bearer`.",
        license(name = "MIT OR Apache-2.0"),
    ))]
    struct Document;

    let mut document = <Document as utoipa::OpenApi>::openapi();
    let key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("One of `api.keys`")).build();
    document.components.get_or_insert_default().add_security_scheme("key", SecurityScheme::Http(key));
    document.security = Some(vec![SecurityRequirement::new("key", [""; 0])]);
    document.servers = Some(vec![Server::new(base)]);
    document
}

/// The document, and a page to read it that needs nothing from other hosts.
pub(super) fn routes(document: OpenApi, base: &str) -> Router {
    let (json_path, page_path) = (format!("{base}/openapi.json"), format!("{base}/docs"));
    let document = whole(&document);
    let page = SwaggerUi::new(page_path).config(Config::new([json_path.clone()]));
    let serve = async move || ([(header::CACHE_CONTROL, "no-cache")], Json(document)).into_response();
    Router::new().route(&json_path, get(serve)).merge(page)
}

/// Adds what types do not say: that one of two fields is wanted, and not both, and that a command of a batch is one command.
fn whole(document: &OpenApi) -> Value {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    let schemas = &mut document["components"]["schemas"];
    let one_of = |first: &str, second: &str| json!([{ "required": [first] }, { "required": [second] }]);
    for schema in ["Publish", "Broadcast", "Set"] {
        schemas[schema]["oneOf"] = one_of("text", "base64");
    }
    for schema in ["Disconnect", "Subscribe", "Unsubscribe"] {
        schemas[schema]["oneOf"] = one_of("user", "session");
    }
    for command in schemas["One"]["oneOf"].as_array_mut().into_iter().flatten() {
        command["additionalProperties"] = json!(false);
    }
    document
}
