use std::fmt;

use serde::de;

/// A value that does not fit its place, in our words and in those of Go.
#[derive(Debug)]
pub struct Fault {
    text: String,
    misfit: Option<Misfit>,
}

/// What Go tells of a value of the wrong kind.
#[derive(Debug)]
struct Misfit {
    found: Found,
    wanted: Option<String>,
    field: Option<Field>,
}

#[derive(Debug)]
enum Found {
    Number(String),
    Kind(&'static str),
}

/// The field with the wrong value: the struct that has it, and the way to it from the outermost one.
#[derive(Debug)]
struct Field {
    holder: String,
    path: String,
}

impl Fault {
    /// The text of Go's decoder, if this is a fault Go knows.
    pub(super) fn in_go_words(&self) -> Option<String> {
        let Misfit { found, wanted, field } = self.misfit.as_ref()?;
        let wanted = wanted.as_ref()?;
        let found = match found {
            Found::Kind(kind) => (*kind).to_owned(),
            Found::Number(digits) if is_number(wanted) => format!("number {digits}"),
            Found::Number(_) => "number".to_owned(),
        };
        let place = match field {
            Some(Field { holder, path }) => format!("struct field {holder}.{path}"),
            None => "value".to_owned(),
        };
        Some(format!("json: cannot unmarshal {found} into Go {place} of type {wanted}"))
    }

    /// The same, where a value of Go's type `wanted` was to be. Whoever is closest to the value knows
    /// best.
    pub(super) fn wanting(mut self, wanted: impl FnOnce() -> String) -> Self {
        if let Some(Misfit { wanted: slot @ None, .. }) = &mut self.misfit {
            *slot = Some(wanted());
        }
        self
    }

    /// The same, in field `name` of the struct Go calls `holder`.
    pub(super) fn within(mut self, holder: &str, name: &str) -> Self {
        if let Some(Misfit { field, .. }) = &mut self.misfit {
            *field = Some(match field.take() {
                Some(Field { holder, path }) => Field { holder, path: format!("{name}.{path}") },
                None => {
                    let holder = holder.rsplit('.').next().unwrap_or(holder).to_owned();
                    Field { holder, path: name.to_owned() }
                }
            });
        }
        self
    }

    fn of_value(text: String, unexpected: de::Unexpected<'_>) -> Self {
        let found = match unexpected {
            de::Unexpected::Bool(_) => Found::Kind("bool"),
            de::Unexpected::Unsigned(number) => Found::Number(number.to_string()),
            de::Unexpected::Signed(number) => Found::Number(number.to_string()),
            de::Unexpected::Float(number) => Found::Number(format!("{number:?}")),
            de::Unexpected::Str(_) => Found::Kind("string"),
            de::Unexpected::Seq => Found::Kind("array"),
            de::Unexpected::Map => Found::Kind("object"),
            _ => return de::Error::custom(text),
        };
        Self { text, misfit: Some(Misfit { found, wanted: None, field: None }) }
    }
}

fn is_number(go_type: &str) -> bool {
    ["int", "uint", "float"].iter().any(|kind| go_type.starts_with(kind))
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self { text: text.to_string(), misfit: None }
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::of_value(format!("invalid type: {unexpected}, expected {expected}"), unexpected)
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::of_value(format!("invalid value: {unexpected}, expected {expected}"), unexpected)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fault {}
