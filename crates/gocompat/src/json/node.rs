use std::{cell::RefCell, fmt, rc::Rc};

use serde::{
    Deserialize, Deserializer,
    de::{
        self, DeserializeSeed, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::Number;

use super::{fault::Fault, go_type, stray::Stray};

/// A JSON value that remembers every key of an object, in order.
#[derive(Clone)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Object(Object),
}

/// The entries of an object, and where those are noted that no struct asks for, if they are to be.
#[derive(Clone)]
pub(super) struct Object {
    entries: Vec<(String, Node)>,
    noted: Option<Noted>,
}

/// Where an object is, and what is known of all that surrounds it.
#[derive(Clone)]
struct Noted {
    path: String,
    strays: Strays,
}

/// The keys nobody asked for.
pub(super) type Strays = Rc<RefCell<Vec<Stray>>>;

// === reading JSON into a Node ===

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        Number::from_f64(value).map(Node::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            object.push(entry);
        }
        Ok(Node::Object(Object { entries: object, noted: None }))
    }
}

// === reading a Node as Go would ===

impl Node {
    /// Has the keys below `path` that no struct asks for put into `strays` when this is read.
    pub(super) fn noting(&mut self, path: &str, strays: &Strays) {
        match self {
            Self::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    item.noting(&format!("{path}[{index}]"), strays);
                }
            }
            Self::Object(Object { entries, noted }) => {
                for (key, node) in entries.iter_mut() {
                    node.noting(&below(path, key), strays);
                }
                *noted = Some(Noted { path: path.to_owned(), strays: strays.clone() });
            }
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => {}
        }
    }

    fn unexpected(&self) -> de::Unexpected<'_> {
        match self {
            Self::Null => de::Unexpected::Unit,
            Self::Bool(value) => de::Unexpected::Bool(*value),
            Self::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), _, _) => de::Unexpected::Unsigned(number),
                (None, Some(number), _) => de::Unexpected::Signed(number),
                (None, None, number) => de::Unexpected::Float(number.unwrap_or(f64::NAN)),
            },
            Self::Text(text) => de::Unexpected::Str(text),
            Self::List(_) => de::Unexpected::Seq,
            Self::Object(_) => de::Unexpected::Map,
        }
    }

    fn read_as<'de, V: Visitor<'de>>(self, go: &str, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_any(visitor).map_err(|fault| fault.wanting(|| go.to_owned()))
    }
}

impl Node {
    /// Takes an entry out of an object, whatever the case of its key. Says whether there was one.
    pub(super) fn remove(&mut self, key: &str) -> bool {
        let Self::Object(Object { entries, .. }) = self else { return false };
        let before = entries.len();
        entries.retain(|(name, _)| !name.eq_ignore_ascii_case(key));
        entries.len() < before
    }
}

impl<'de> IntoDeserializer<'de, Fault> for Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! read_as {
    ($($method:ident: $go:literal,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.read_as($go, visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), _, _) => visitor.visit_u64(number),
                (None, Some(number), _) => visitor.visit_i64(number),
                (None, None, number) => visitor.visit_f64(number.unwrap_or(f64::NAN)),
            },
            Self::Text(text) => visitor.visit_string(text),
            Self::List(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter())),
            Self::Object(Object { entries, .. }) => {
                visitor.visit_map(MapDeserializer::new(entries.into_iter()))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Null => visitor.visit_none(),
            node => visitor.visit_some(node),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Null => visitor.visit_seq(SeqDeserializer::new(Vec::<Self>::new().into_iter())),
            list @ Self::List(_) => list.deserialize_any(visitor),
            node => Err(Fault::invalid_type(node.unexpected(), &visitor)
                .wanting(|| go_type::of_list(visitor))),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Null => visitor.visit_map(MapDeserializer::new(no_entries())),
            node => node.deserialize_any(visitor),
        }
    }

    /// Only objects (and `null`, as the empty one) are structs here; a list is not.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self {
            Self::Object(object) => visitor.visit_map(Fields::new(name, object, fields)),
            Self::Null => visitor.visit_map(MapDeserializer::new(no_entries())),
            // What the struct is called here tells nobody anything.
            node => {
                Err(Fault::invalid_type(node.unexpected(), &"an object")
                    .wanting(|| name.to_owned()))
            }
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self {
            Self::Text(text) => visitor.visit_enum(text.into_deserializer()),
            _ => Err(Fault::custom("expected a text that names one of the known values")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    read_as! {
        deserialize_bool: "bool",
        deserialize_i8: "int8",
        deserialize_i16: "int16",
        deserialize_i32: "int32",
        deserialize_i64: "int",
        deserialize_u8: "uint8",
        deserialize_u16: "uint16",
        deserialize_u32: "uint32",
        deserialize_u64: "uint64",
        deserialize_f32: "float32",
        deserialize_f64: "float64",
        deserialize_str: "string",
        deserialize_string: "string",
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn no_entries() -> impl Iterator<Item = (String, Node)> {
    std::iter::empty()
}

/// The entries of an object that set fields of a struct: each field once, by its last entry that is
/// not `null`; a key means the field it equals, else the field it equals but for case.
struct Fields {
    holder: &'static str,
    field: &'static str,
    entries: std::vec::IntoIter<(&'static str, Node)>,
    value: Option<Node>,
}

impl Fields {
    fn new(
        holder: &'static str,
        Object { entries, noted }: Object,
        fields: &'static [&'static str],
    ) -> Self {
        let mut chosen: Vec<(&'static str, Node)> = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let exact = fields.iter().find(|field| **field == key);
            let field = exact.or_else(|| fields.iter().find(|f| f.eq_ignore_ascii_case(&key)));
            let Some(field) = field else {
                if let Some(Noted { path, strays }) = &noted {
                    let stray = Stray::of(&key, fields, |key| below(path, key));
                    strays.borrow_mut().push(stray);
                }
                continue;
            };
            if matches!(node, Node::Null) {
                continue;
            }
            match chosen.iter_mut().find(|(name, _)| name == field) {
                Some(earlier) => earlier.1 = node,
                None => chosen.push((field, node)),
            }
        }
        Self { holder, field: "", entries: chosen.into_iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Fields {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some((field, node)) = self.entries.next() else {
            return Ok(None);
        };
        self.field = field;
        self.value = Some(node);
        let field: de::value::StrDeserializer<'_, Fault> = field.into_deserializer();
        seed.deserialize(field).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let node =
            self.value.take().ok_or_else(|| Fault::custom("value asked for before its key"))?;
        seed.deserialize(node).map_err(|fault| fault.within(self.holder, self.field))
    }
}
