//! The dashboard: a page, a script, a style and a picture, which are part of the program.
//!
//! They hold no data: the script asks the API for it as any client does, with the token if there is one. So they are
//! given to everybody. The policy that goes with them lets the browser run and load nothing but these files, so that
//! whatever stands in a payload is shown and never run.

use crate::api::response::Reply;

/// Nothing inline, nothing from elsewhere, no frame around it, and no text that becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// One of the files.
#[derive(PartialEq, Eq, Debug)]
pub struct File {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const FILES: [File; 4] = [
    File { path: "/", content_type: "text/html; charset=utf-8", text: include_str!("index.html") },
    File { path: "/ui/app.js", content_type: "text/javascript; charset=utf-8", text: include_str!("app.js") },
    File { path: "/ui/style.css", content_type: "text/css; charset=utf-8", text: include_str!("style.css") },
    File { path: "/ui/icon.svg", content_type: "image/svg+xml", text: include_str!("icon.svg") },
];

impl File {
    /// The file at this path, if it is one of them.
    pub fn at(path: &str) -> Option<&'static File> {
        FILES.iter().find(|file| file.path == path)
    }

    /// The answer that brings it.
    pub fn reply(&self) -> Reply {
        let body = self.text.as_bytes().to_vec();
        Reply { status: 200, content_type: self.content_type, headers: Vec::new(), body }
            .with("Content-Security-Policy", POLICY)
            .with("Referrer-Policy", "no-referrer")
            .with("X-Frame-Options", "DENY")
    }
}
