//! Clients of the policy server, one for each of its doors: [`internal`] is what cells speak (mutual
//! TLS, asynchronous, held polls), [`external`] what people and scripts speak (a token, blocking).
//!
//! An answer is understood as a whole or refused as a whole; a caller that keeps its last good state
//! on every error is safe. Start at [`internal::Client::policies`].
//!
//! Each door is a cargo feature of the same name, so that no program links the other one's runtime.

#[cfg(feature = "external")]
pub mod external;
#[cfg(feature = "internal")]
pub mod internal;
#[cfg(any(feature = "external", feature = "internal"))]
mod refusal;
