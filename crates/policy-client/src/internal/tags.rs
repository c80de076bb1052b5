use policy::{
    Tag,
    wire::tag::{TagBody, TagRequest},
};

use super::{Client, ClientError};

impl Client {
    /// The tag of something that is no app, e.g. id `INGRESS_ROUTER` of kind `router`; allocated when
    /// it has none yet (spec/policy-server.md §5.3).
    pub async fn tag(&self, id: &str, kind: &str) -> Result<Tag, ClientError> {
        let request = TagRequest { id: id.to_owned(), kind: kind.to_owned() };
        let ask = |url| self.put(url, &request).body();
        let body = self.addresses.ask("/networking/v1/internal/tags", ask).await?;
        body.understand(|TagBody { id: _, tag, kind: _ }| Tag::from_hex(&tag))
    }
}
