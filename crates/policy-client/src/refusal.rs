//! Why the server said no, in its own words.

use serde::Deserialize;

/// Longer texts are cut: a proxy's error page is no explanation.
const LONGEST: usize = 300;

/// The body of every refusal (spec/policy-server.md §2.5).
#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    error: String,
}

/// The `error` of a refusal's body, or the body itself when it is no such JSON; always one line.
pub(crate) fn text(body: &[u8]) -> String {
    let error = match gocompat::json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { error }) if !error.is_empty() => error,
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    let line: Vec<&str> = error.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let line: Vec<&str> = line.into_iter().filter(|word| !word.is_empty()).collect();
    let line = line.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.is_empty() => "no reason given".to_owned(),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_servers_own_words_are_found() {
        assert_eq!(text(br#"{"error": "policy quota exceeded"}"#), "policy quota exceeded");
        assert_eq!(text(b"404 page not found\n"), "404 page not found");
        assert_eq!(text(b""), "no reason given");
        assert_eq!(text(b"{\"error\": \"a\\n\\u001b[31mb\"}"), "a [31mb");
    }

    proptest! {
        #[test]
        fn any_body_becomes_one_short_line(body: Vec<u8>) {
            let line = text(&body);
            prop_assert!(!line.contains(char::is_control));
            prop_assert!(line.chars().count() <= LONGEST + 1);
        }
    }
}
