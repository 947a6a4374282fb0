//! Texts that are compressed in the program; `build.rs` compresses them.

/// The compressed bytes that `build.rs` has written under this name.
macro_rules! packed {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".packed"))
    };
}
pub(crate) use packed;

/// The text of compressed bytes.
pub fn unpack(packed: &[u8]) -> String {
    let bytes = miniz_oxide::inflate::decompress_to_vec(packed).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Text files that are compressed together. In front of each stand a zero byte, its name, and a line break.
pub struct Files(String);

impl Files {
    pub fn unpacked(packed: &[u8]) -> Files {
        Files(unpack(packed))
    }

    /// The file of this name.
    pub fn text(&self, name: &str) -> Option<&str> {
        let mut files = self.0.split('\0').filter_map(|file| file.split_once('\n'));
        files.find(|(found, _)| *found == name).map(|(_, text)| text)
    }
}
