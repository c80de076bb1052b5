use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, SeqAccess, Visitor},
    forward_to_deserialize_any,
};

use super::fault::Fault;

/// What Go calls the list that `visitor` would read. A visitor does not tell, so it is given one item
/// that fails with the name of what was asked of it.
pub(super) fn of_list<'de, V: Visitor<'de>>(visitor: V) -> String {
    match visitor.visit_seq(OneItem) {
        Err(item) => format!("[]{item}"),
        Ok(_) => "[]interface {}".to_owned(),
    }
}

struct OneItem;

impl<'de> SeqAccess<'de> for OneItem {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        seed.deserialize(Asked).map(Some)
    }
}

/// Answers each question with the Go type that is asked for, as an error.
struct Asked;

macro_rules! name {
    ($($method:ident: $go:literal,)*) => {
        $(fn $method<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Fault> {
            Err(Fault::custom($go))
        })*
    };
}

impl<'de> Deserializer<'de> for Asked {
    type Error = Fault;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Fault> {
        Err(Fault::custom(name))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        Err(Fault::custom(of_list(visitor)))
    }

    name! {
        deserialize_any: "interface {}",
        deserialize_bool: "bool",
        deserialize_i64: "int",
        deserialize_str: "string",
        deserialize_string: "string",
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf option unit unit_struct
        newtype_struct tuple tuple_struct map enum identifier ignored_any
    }
}
