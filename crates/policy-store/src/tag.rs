use policy::Tag;

/// A tag in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedTag {
    /// Whose it is: an app GUID, or the name a caller of `tag_for` gave.
    pub id: String,
    /// `app`, or what the caller of `tag_for` said.
    pub kind: String,
    /// The tag.
    pub tag: Tag,
}

impl AssignedTag {
    /// The kind of all tags that policies give out.
    pub const APP: &'static str = "app";
}
