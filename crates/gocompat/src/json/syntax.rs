//! Where a text stops being JSON, in the words of Go's scanner. Only asked after `serde_json` has
//! refused the text, whose own words are for people who look at lines and columns.

/// Deeper values are refused by `serde_json`; Go goes further.
const DEEPEST: usize = 128;

/// What Go says of `text`; `None` if it finds nothing wrong with its syntax.
pub(super) fn complaint(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { rest: text };
    let Err(complaint) = scanner.document() else { return None };
    Some(match complaint {
        Complaint::Eof => "unexpected end of JSON input".to_owned(),
        Complaint::TooDeep => "exceeded max depth".to_owned(),
        Complaint::Byte(byte, context) => format!("invalid character {} {context}", quoted(byte)),
    })
}

enum Complaint {
    Eof,
    TooDeep,
    Byte(u8, String),
}

type Scan<T> = Result<T, Complaint>;

struct Scanner<'a> {
    rest: &'a [u8],
}

impl Scanner<'_> {
    fn document(&mut self) -> Scan<()> {
        self.value(0)?;
        self.space();
        match self.rest {
            [] => Ok(()),
            [byte, ..] => Err(unexpected(*byte, "after top-level value")),
        }
    }

    fn value(&mut self, depth: usize) -> Scan<()> {
        if depth > DEEPEST {
            return Err(Complaint::TooDeep);
        }
        self.space();
        match self.next()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string(),
            b'-' => self.negative(),
            byte @ b'0'..=b'9' => self.number(byte),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            byte => Err(unexpected(byte, "looking for beginning of value")),
        }
    }

    fn object(&mut self, depth: usize) -> Scan<()> {
        self.space();
        if self.skip(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            self.expect(b'"', "looking for beginning of object key string")?;
            self.string()?;
            self.space();
            self.expect(b':', "after object key")?;
            self.value(depth + 1)?;
            self.space();
            match self.next()? {
                b',' => {}
                b'}' => return Ok(()),
                byte => return Err(unexpected(byte, "after object key:value pair")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Scan<()> {
        self.space();
        if self.skip(b']') {
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            self.space();
            match self.next()? {
                b',' => {}
                b']' => return Ok(()),
                byte => return Err(unexpected(byte, "after array element")),
            }
        }
    }

    fn string(&mut self) -> Scan<()> {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                byte @ ..0x20 => return Err(unexpected(byte, "in string literal")),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Scan<()> {
        match self.next()? {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => Ok(()),
            b'u' => (0..4).try_for_each(|_| match self.next()? {
                byte if byte.is_ascii_hexdigit() => Ok(()),
                byte => Err(unexpected(byte, "in \\u hexadecimal character escape")),
            }),
            byte => Err(unexpected(byte, "in string escape code")),
        }
    }

    fn negative(&mut self) -> Scan<()> {
        let first = self.digit("in numeric literal")?;
        self.number(first)
    }

    /// The rest of a number that begins with the digit `first`. Nothing follows a zero but a fraction
    /// or an exponent.
    fn number(&mut self, first: u8) -> Scan<()> {
        if first != b'0' {
            self.digits();
        }
        if self.skip(b'.') {
            self.digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if self.skip(b'e') || self.skip(b'E') {
            let _ = self.skip(b'+') || self.skip(b'-');
            self.digit("in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn digit(&mut self, context: &str) -> Scan<u8> {
        match self.next()? {
            byte if byte.is_ascii_digit() => Ok(byte),
            byte => Err(unexpected(byte, context)),
        }
    }

    fn digits(&mut self) {
        while let [b'0'..=b'9', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// The rest of `word`, whose first letter has been read.
    fn literal(&mut self, word: &str) -> Scan<()> {
        word.chars().skip(1).try_for_each(|letter| match self.next()? {
            byte if char::from(byte) == letter => Ok(()),
            byte => Err(unexpected(
                byte,
                &format!("in literal {word} (expecting {})", quoted(letter as u8)),
            )),
        })
    }

    fn space(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn next(&mut self) -> Scan<u8> {
        let [byte, rest @ ..] = self.rest else { return Err(Complaint::Eof) };
        self.rest = rest;
        Ok(*byte)
    }

    fn expect(&mut self, wanted: u8, context: &str) -> Scan<()> {
        match self.next()? {
            byte if byte == wanted => Ok(()),
            byte => Err(unexpected(byte, context)),
        }
    }

    fn skip(&mut self, wanted: u8) -> bool {
        match self.rest {
            [byte, rest @ ..] if *byte == wanted => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }
}

fn unexpected(byte: u8, context: &str) -> Complaint {
    Complaint::Byte(byte, context.to_owned())
}

/// A byte as Go quotes it: as the character of that number, whatever the text's encoding.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        ..0x20 | 0x7f => format!(r"'\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!(r"'\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    #[test]
    fn each_fault_has_gos_words() {
        for (text, words) in [
            ("", "unexpected end of JSON input"),
            ("  ", "unexpected end of JSON input"),
            (r#"{"a""#, "unexpected end of JSON input"),
            ("-", "unexpected end of JSON input"),
            ("nonsense", "invalid character 'o' in literal null (expecting 'u')"),
            ("banana", "invalid character 'b' looking for beginning of value"),
            ("{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
            (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("01", "invalid character '1' after top-level value"),
            ("tru3", "invalid character '3' in literal true (expecting 'e')"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1e+x", "invalid character 'x' in exponent of numeric literal"),
            ("\"\n\"", r"invalid character '\n' in string literal"),
            (r#""\x""#, "invalid character 'x' in string escape code"),
            (r#""\u00g""#, r"invalid character 'g' in \u hexadecimal character escape"),
            ("\u{feff}{}", "invalid character 'ï' looking for beginning of value"),
            ("\0", r"invalid character '\x00' looking for beginning of value"),
        ] {
            assert_eq!(complaint(text.as_bytes()).as_deref(), Some(words), "{text:?}");
        }
    }

    #[test]
    fn depth_has_an_end() {
        let deep = "[".repeat(1 << 20);
        assert_eq!(complaint(deep.as_bytes()).as_deref(), Some("exceeded max depth"));
    }

    proptest! {
        #[test]
        fn exactly_what_is_no_json_is_complained_about(text in r#"[\[\]{}:,"\\a-fu0-9.eE+\- \ntrnls]{0,16}"#) {
            let is_json = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            prop_assert_eq!(complaint(text.as_bytes()).is_none(), is_json);
        }

        #[test]
        fn any_bytes_are_scanned(bytes: Vec<u8>) {
            let _ = complaint(&bytes);
        }
    }
}
