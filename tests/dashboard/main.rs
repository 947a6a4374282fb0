//! The dashboard: the files that the server sends, and what a real browser shows.
//!
//! With `THREADQ_PICTURES=FOLDER` the tests write pictures of the pages into that folder: wide and narrow, light and
//! dark.

#[path = "../common/mod.rs"]
mod common;

mod accessibility;
mod actions;
mod attempts;
mod browser;
mod figures;
mod files;
mod forms;
mod limits;
mod lists;
mod pages;
mod schedules;
mod still;
mod token;
mod workers;
