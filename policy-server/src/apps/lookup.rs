//! Which apps there are, asked for in questions of bearable length.

use std::num::NonZeroUsize;

use futures::{StreamExt, TryStreamExt, stream};
use policy::AppGuid;

use crate::cloud_controller::{App, AppDirectory, CloudControllerError};

/// How many questions are under way at the same time.
const AT_ONCE: usize = 4;

/// The longest name that is asked about.
const LONGEST: usize = 100;

/// What was found about some of the apps: a question and its answer.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    /// The apps in question.
    pub apps: &'a [AppGuid],
    /// Those there are, and perhaps others.
    pub found: Vec<App>,
}

/// What is found about `apps`, in questions about `most` of them.
pub(crate) async fn chunks<'a>(
    directory: &dyn AppDirectory,
    apps: &'a [AppGuid],
    most: NonZeroUsize,
) -> Result<Vec<Chunk<'a>>, CloudControllerError> {
    let questions = apps.chunks(most.get()).map(|apps| async move {
        let askable: Vec<_> = apps.iter().filter(|app| could_be_known(app)).cloned().collect();
        let found = if askable.is_empty() { Vec::new() } else { directory.apps(&askable).await? };
        Ok(Chunk { apps, found })
    });
    stream::iter(questions.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect().await
}

/// The same, as one list of the apps there are.
pub(crate) async fn existing(
    directory: &dyn AppDirectory,
    apps: &[AppGuid],
    most: NonZeroUsize,
) -> Result<Vec<App>, CloudControllerError> {
    let chunks = chunks(directory, apps, most).await?;
    Ok(chunks.into_iter().flat_map(|chunk| chunk.found).collect())
}

/// Whether Cloud Controller may have given an app this name: it gives UUIDs. Policies may name
/// anything, and a comma would turn one app into two, a page of text into an address that is refused;
/// then nobody could list policies, or clean them up, until that one was gone.
fn could_be_known(app: &AppGuid) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    app.as_str().len() <= LONGEST && app.as_str().bytes().all(usual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud_controller::fake::Directory;

    fn apps(names: &[&str]) -> Vec<AppGuid> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn questions_are_divided_and_answers_kept_with_them() {
        let directory = Directory::new(&[("a", "s"), ("c", "s"), ("e", "s")], &[]);
        let apps = apps(&["a", "b", "c", "d", "e"]);
        let found = chunks(&directory, &apps, NonZeroUsize::new(2).unwrap()).await.unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|chunk| (chunk.apps.len(), chunk.found[0].guid.as_str(), chunk.found.len()))
            .collect();
        assert_eq!(found, [(2, "a", 1), (2, "c", 1), (1, "e", 1)]);
        assert_eq!(directory.asked(), ["apps a,b", "apps c,d", "apps e"]);
    }

    #[tokio::test]
    async fn nothing_is_asked_about_what_nobody_can_know() {
        let directory = Directory::new(&[("a", "s")], &[]);
        let long = "x".repeat(LONGEST + 1);
        let odd = apps(&["a,b", "a b", "ü", "a&b", "%", &long]);
        let most = NonZeroUsize::new(10).unwrap();
        assert!(existing(&directory, &odd, most).await.unwrap().is_empty());
        assert!(directory.asked().is_empty());
        let mixed = apps(&["a,b", "a"]);
        assert_eq!(existing(&directory, &mixed, most).await.unwrap().len(), 1);
        assert_eq!(directory.asked(), ["apps a"]);
    }
}
