//! One plain HTTP request from inside a namespace.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;

/// GETs `url`; anything but 200 is an error that tells the body.
pub fn get(netns: &Netns, url: &str, token: Option<&str>) -> Result<String> {
    netns.inside(|| {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            .build()
            .into();
        let mut request = agent.get(url);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut answer = request.call().with_context(|| format!("cannot GET {url}"))?;
        let body = answer.body_mut().read_to_string().context("cannot read the answer")?;
        ensure!(answer.status() == 200, "GET {url} is {}: {body}", answer.status());
        Ok(body)
    })?
}
