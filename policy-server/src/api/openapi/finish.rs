//! What is said of the whole document at once.

use policy::wire::{v0, v1};
use utoipa::{
    Modify, ToSchema,
    openapi::{
        Components, Deprecated, Object, ObjectBuilder, OneOf, OpenApi, Ref, RefOr, Schema,
        path::{HttpMethod, Operation},
        schema::{SchemaType, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::refusals;

/// How callers prove who they are.
pub(super) struct Tokens;

/// Wire types leave nothing out when they are written, though they may miss anything when read. That
/// is what clients should know of them.
pub(super) struct Completeness;

/// What is answered in a second place, too.
pub(super) struct Aliases;

impl Modify for Tokens {
    fn modify(&self, document: &mut OpenApi) {
        // There is one only because the tool makes one of what a manifest does not say.
        document.info.license = None;
        let components = document.components.get_or_insert_with(Components::new);
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some("An access token of the platform's UAA, with the scope named."))
            .build();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
        components.responses.extend(refusals::shared());
    }
}

impl Modify for Completeness {
    fn modify(&self, document: &mut OpenApi) {
        let Some(components) = &mut document.components else { return };
        for schema in components.schemas.values_mut() {
            let RefOr::T(Schema::Object(object)) = schema else { continue };
            object.required.clear();
            for (name, property) in &mut object.properties {
                forget_default(property);
                if !absent_if_none(property) {
                    object.required.push(name.clone());
                }
            }
        }
        for list in [v0::PolicyList::name(), v1::PolicyList::name()] {
            if let Some(RefOr::T(Schema::Object(list))) = components.schemas.get_mut(&*list) {
                list.properties.insert("total_policies".to_owned(), count().into());
            }
        }
    }
}

/// Whoever sends it is not listened to.
fn count() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .description(Some("Length of `policies`; ignored on input."))
        .read_only(true)
        .build()
}

fn forget_default(property: &mut RefOr<Schema>) {
    match property {
        RefOr::T(Schema::Object(object)) => object.default = None,
        RefOr::T(Schema::Array(array)) => array.default = None,
        RefOr::Ref(reference) => reference.default = None,
        RefOr::T(_) => {}
    }
}

/// Whether it is an `Option`. None of ours is ever sent as null.
fn absent_if_none(property: &mut RefOr<Schema>) -> bool {
    if let RefOr::T(Schema::OneOf(OneOf { items, .. })) = property
        && items.iter().any(is_null)
        && let Some(something) = items.iter().find(|item| !is_null(item)).cloned()
    {
        *property = something;
        return true;
    }
    let RefOr::T(Schema::Object(object)) = property else { return false };
    let SchemaType::Array(types) = &object.schema_type else { return false };
    let Some(something) = types.iter().find(|kind| **kind != Type::Null) else { return false };
    object.schema_type = something.clone().into();
    true
}

fn is_null(schema: &RefOr<Schema>) -> bool {
    matches!(schema, RefOr::T(Schema::Object(object)) if object.schema_type == Type::Null.into())
}

impl Modify for Aliases {
    fn modify(&self, document: &mut OpenApi) {
        let copy = |document: &OpenApi, path, method| -> Operation {
            let known = document.paths.get_path_operation(path, method);
            known.expect("the document has what there is a second place for").clone()
        };
        let mut uptime = copy(document, "/networking", HttpMethod::Get);
        uptime.operation_id = Some("getUptimeOfRoot".to_owned());
        document.paths.add_path_operation("/", vec![HttpMethod::Get], uptime);

        let path = "/networking/{version}/external/policies/delete";
        let delete = of_2016(copy(document, path, HttpMethod::Post));
        let path = "/networking/v0/external/policies";
        document.paths.add_path_operation(path, vec![HttpMethod::Delete], delete);
    }
}

/// Deleting as clients of 2016 do it.
fn of_2016(mut delete: Operation) -> Operation {
    delete.operation_id = Some("deletePoliciesOf2016".to_owned());
    delete.summary = Some("Delete policies, as in 2016.".to_owned());
    delete.description = Some(
        "For clients of 2016; only version 0 has it. New ones had better use POST: not every proxy \
         lets the body of a DELETE through."
            .to_owned(),
    );
    delete.deprecated = Some(Deprecated::True);
    delete.parameters = None;
    if let Some(RefOr::T(body)) = &mut delete.request_body
        && let Some(RefOr::T(content)) = body.content.get_mut("application/json")
    {
        content.schema = Some(Ref::from_schema_name(v0::PolicyList::name()).into());
        content.examples.retain(|name, _| name == "v0");
    }
    delete
}
