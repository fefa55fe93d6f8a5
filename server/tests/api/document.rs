//! The document, and the page to read it.

use serde_json::Value;

use crate::common::{Running, start};
use crate::config;
use crate::plain::{VERSIONS, Version, get};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_is_in_the_document() {
    let mut config = config();
    config.api.base = "/back/end".into();
    let Running { place, .. } = &start(config, |builder| builder).await;
    for version in VERSIONS {
        let document = get(place, version, "/back/end/openapi.json").await.json().await;
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["servers"][0]["url"], "/back/end");
        let paths: Vec<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
        let mut commands = commands(&document);
        commands.push("/batch".into());
        commands.sort();
        assert_eq!(paths, commands, "a batch takes every command");
        for (path, methods) in document["paths"].as_object().unwrap() {
            let post = &methods["post"];
            assert!(post["summary"].is_string() && post["requestBody"]["required"] == true, "{path}");
            for status in ["200", "400", "401", "413", "415", "422"] {
                assert!(post["responses"][status]["description"].is_string(), "{path} {status}");
            }
        }
    }
}

/// What a batch may have, as paths.
fn commands(document: &Value) -> Vec<String> {
    let all = document["components"]["schemas"]["One"]["oneOf"].as_array().unwrap().iter();
    all.map(|one| format!("/{}", one["required"][0].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_needs_nothing_from_other_hosts() {
    let Running { place, .. } = &start(config(), |builder| builder).await;
    let page = get(place, Version::Http1, "/api/docs/").await.text().await;
    let scripts: Vec<_> =
        page.split(['"', '\'']).filter(|text| text.ends_with(".js") || text.ends_with(".css")).collect();
    assert!(scripts.len() >= 3, "{page}");
    assert!(!page.contains("https://") && !page.contains("http://"), "{page}");
    for script in scripts {
        let answer = get(place, Version::Http1, &format!("/api/docs/{}", script.trim_start_matches("./"))).await;
        assert_eq!(answer.status, 200, "{script}");
        let text = answer.text().await;
        if script.ends_with("initializer.js") {
            assert!(text.contains("/api/openapi.json"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reference_leads_somewhere() {
    let Running { place, .. } = &start(config(), |builder| builder).await;
    let document = get(place, Version::Http1, "/api/openapi.json").await.json().await;
    let text = document.to_string();
    let references: Vec<_> = text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(references.len() > 50, "{references:?}");
    for reference in references {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
    assert!(document.pointer("/components/schemas/Publish/properties/idempotency_key").is_some());
}
