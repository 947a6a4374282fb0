//! The files of the dashboard, which are part of the program: a page, its script in modules, a style sheet and an
//! icon.
//!
//! They contain no data: the script requests it from the API as any client does, with the token if one is set. So the
//! files are served without a token. Their Content-Security-Policy lets the browser load and run nothing but these files,
//! so that text in a payload is shown and never run.

use crate::api::response::Response;
use crate::packed::{packed, unpack};

/// No inline code, nothing from other sites, no frames, and no text that becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// One of the files.
struct File {
    name: &'static str,
    content_type: &'static str,
    packed: &'static [u8],
}

const PAGE: File =
    File { name: "index.html", content_type: "text/html; charset=utf-8", packed: packed!("index.html") };

/// The files below `/ui/`. The page names `app.js`, which imports the other modules.
static FILES: &[File] = &[
    script("app.js", packed!("app.js")),
    script("api.js", packed!("api.js")),
    script("bulk.js", packed!("bulk.js")),
    script("charts.js", packed!("charts.js")),
    script("elements.js", packed!("elements.js")),
    script("forms.js", packed!("forms.js")),
    script("job.js", packed!("job.js")),
    script("jobs.js", packed!("jobs.js")),
    script("limits.js", packed!("limits.js")),
    script("overview.js", packed!("overview.js")),
    script("parts.js", packed!("parts.js")),
    script("queues.js", packed!("queues.js")),
    script("schedules.js", packed!("schedules.js")),
    script("submit.js", packed!("submit.js")),
    script("text.js", packed!("text.js")),
    File { name: "style.css", content_type: "text/css; charset=utf-8", packed: packed!("style.css") },
    File { name: "icon.svg", content_type: "image/svg+xml", packed: packed!("icon.svg") },
];

const fn script(name: &'static str, packed: &'static [u8]) -> File {
    File { name, content_type: "text/javascript; charset=utf-8", packed }
}

/// The page itself.
pub fn page() -> Response {
    PAGE.response()
}

/// The file of this name.
pub fn file(name: &str) -> Result<Response, Response> {
    let file = FILES.iter().find(|file| file.name == name);
    let file = file.ok_or_else(|| Response::error(404, "not_found", "the dashboard has no such file"))?;
    Ok(file.response())
}

impl File {
    fn response(&self) -> Response {
        Response::document(self.content_type, &unpack(self.packed))
            .with("Content-Security-Policy", POLICY)
            .with("Referrer-Policy", "no-referrer")
            .with("X-Frame-Options", "DENY")
    }
}
