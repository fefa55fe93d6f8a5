//! Copies the built browser client and demo page to where the server embeds them from. Works without Node: what is not
//! built is replaced by a stand-in that says so.

use std::path::Path;
use std::{env, fs, io};

const BUILD_COMMAND: &str = "npm --prefix client-js ci && npm --prefix client-js run build";

fn main() -> io::Result<()> {
    let missing = |name: &str| io::Error::other(format!("cargo sets {name} for build scripts"));
    let manifest = env::var("CARGO_MANIFEST_DIR").map_err(|_| missing("CARGO_MANIFEST_DIR"))?;
    let out = env::var("OUT_DIR").map_err(|_| missing("OUT_DIR"))?;
    let dist = Path::new(&manifest).join("../client-js/dist");
    let assets = Path::new(&out).join("assets");

    // A missing folder is watched, too: cargo then runs this again each time, which costs milliseconds.
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", dist.display());

    if assets.exists() {
        fs::remove_dir_all(&assets)?;
    }
    fs::create_dir_all(assets.join("demo"))?;
    for part in ["throughline.js", "throughline.js.map"] {
        if dist.join(part).is_file() {
            fs::copy(dist.join(part), assets.join(part))?;
        }
    }
    if dist.join("demo").is_dir() {
        for entry in fs::read_dir(dist.join("demo"))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), assets.join("demo").join(entry.file_name()))?;
            }
        }
    }

    let client = assets.join("throughline.js");
    if !client.exists() {
        let text = format!(
            "throw new Error('The browser client is not built. Run: {BUILD_COMMAND}; then build the server again.');\n"
        );
        fs::write(client, text)?;
    }
    let page = assets.join("demo/index.html");
    if !page.exists() {
        let text = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Throughline</title>\n\
             <h1>The demo page is not built</h1>\n<p>The server runs. To get the page, run</p>\n\
             <pre>{}</pre>\n<p>and build the server again.</p></html>\n",
            BUILD_COMMAND.replace('&', "&amp;")
        );
        fs::write(page, text)?;
    }
    Ok(())
}
