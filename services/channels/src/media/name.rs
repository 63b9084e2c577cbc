//! What a file is called that came without a name.

use model::file::essence;

/// For the eyes of people: the true type is found when the bytes are here.
pub fn file_name(stem: &str, media_type: &str) -> String {
    format!("{stem}.{}", extension(&essence(media_type)))
}

fn extension(media_type: &str) -> &str {
    match media_type {
        "image/jpeg" => "jpg",
        "audio/mpeg" => "mp3",
        "text/plain" => "txt",
        "text/vcard" | "text/x-vcard" => "vcf",
        other => {
            let subtype = other.rsplit('/').next().unwrap_or_default();
            let is_plain = (1..=5).contains(&subtype.len()) && subtype.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if is_plain { subtype } else { "bin" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_as_its_type_says() {
        let check = |media_type: &str, expected: &str| assert_eq!(file_name("file", media_type), expected);
        check("image/jpeg", "file.jpg");
        check("audio/ogg; codecs=opus", "file.ogg");
        check("image/webp", "file.webp");
        check("application/vnd.oasis.opendocument.text", "file.bin");
        check("", "file.bin");
        check("a/../b", "file.b");
    }
}
