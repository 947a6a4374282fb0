//! The files of the dashboard, which are part of the program: a page, a script, a style sheet and an icon.
//!
//! They contain no data: the script requests it from the API as any client does, with the token if one is set. So the
//! files are served without a token. Their Content-Security-Policy lets the browser load and run nothing but these files,
//! so that text in a payload is shown and never run.

use crate::api::response::Response;

/// No inline code, nothing from other sites, no frames, and no text that becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// One of the files.
pub struct File {
    content_type: &'static str,
    text: &'static str,
}

pub const PAGE: File = File { content_type: "text/html; charset=utf-8", text: include_str!("index.html") };
pub const SCRIPT: File =
    File { content_type: "text/javascript; charset=utf-8", text: include_str!("app.js") };
pub const STYLE: File = File { content_type: "text/css; charset=utf-8", text: include_str!("style.css") };
pub const ICON: File = File { content_type: "image/svg+xml", text: include_str!("icon.svg") };

impl File {
    pub fn response(&self) -> Response {
        Response::document(self.content_type, self.text)
            .with("Content-Security-Policy", POLICY)
            .with("Referrer-Policy", "no-referrer")
            .with("X-Frame-Options", "DENY")
    }
}
