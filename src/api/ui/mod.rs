//! The files of the dashboard, which are part of the program: a page, its script in modules, a style sheet and an
//! icon.
//!
//! They contain no data: the script requests it from the API as any client does, with the token if one is set. So the
//! files are served without a token. Their Content-Security-Policy lets the browser load and run nothing but these files,
//! so that text in a payload is shown and never run.

use std::sync::LazyLock;

use crate::api::response::Response;
use crate::packed::{Files, packed};

/// No inline code, nothing from other sites, no frames, and no text that becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// The files of this folder. They are unpacked when a browser first requests a file, and kept: 0.1 MB.
static FILES: LazyLock<Files> = LazyLock::new(|| Files::unpacked(packed!("ui")));

/// The page itself, which names `app.js`; this script imports the other ones.
pub fn page() -> Response {
    response("index.html", "text/html; charset=utf-8").unwrap_or_else(missing)
}

/// The file of this name below `/ui/`.
pub fn file(name: &str) -> Result<Response, Response> {
    let content_type = match name.rsplit_once('.') {
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => return Err(missing()),
    };
    response(name, content_type).ok_or_else(missing)
}

fn missing() -> Response {
    Response::error(404, "not_found", "the dashboard has no such file")
}

fn response(name: &str, content_type: &'static str) -> Option<Response> {
    let document = Response::document(content_type, FILES.text(name)?);
    let document = document.with("Content-Security-Policy", POLICY).with("Referrer-Policy", "no-referrer");
    Some(document.with("X-Frame-Options", "DENY"))
}
