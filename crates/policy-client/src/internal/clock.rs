//! The server's clock.

use reqwest::header::DATE;

use super::{Client, ClientError};

impl Client {
    /// What the server says the date is, in the words of HTTP (`Thu, 26 Nov 2026 02:49:10 GMT`); `None`
    /// if it does not say. Any answer will do, also one that refuses.
    pub async fn date(&self) -> Result<Option<String>, ClientError> {
        // Small wherever it is answered, and without an effect.
        let path = "/networking/v1/internal/policies_last_updated";
        let response = self.addresses.ask(path, |url| self.get(url).response()).await?;
        Ok(response.headers().get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned))
    }
}
