//! The dashboard: what is served, and what a real browser makes of it.
//!
//! With `THREADQ_PICTURES=FOLDER` the pages are left there as pictures, wide and narrow, light and dark, to be looked at.

#[path = "../common/mod.rs"]
mod common;

mod accessibility;
mod actions;
mod browser;
mod figures;
mod files;
mod pages;
mod still;
mod token;
mod workers;
