//! What all outgoing connections share: how a URL is read, which certificate authorities are trusted, and how an answer is
//! read that a server sends before it has read the whole request.

pub mod authorities;
pub(crate) mod early_answer;
pub(crate) mod http_url;
