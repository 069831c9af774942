//! Statements that calls share. A commit wakes thousands of reads at the same moment, and each looks the same things
//! up; hundreds of workers acknowledge one notification each. A [`Gather`] runs one statement at a time, for all that
//! calls have asked for while the last one ran, so that the database runs a few statements, and commits a few times,
//! however many calls there are.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::error::Error;

/// Statements of one kind.
pub struct Gather<K, V>(Arc<Inner<K, V>>);

struct Inner<K, V> {
    run: Box<Run<K, V>>,
    /// The one that has not begun.
    next: Mutex<Option<Next<K, V>>>,
    running: tokio::sync::Mutex<()>,
}

/// Answers each of some keys.
type Run<K, V> = dyn Fn(Vec<K>) -> BoxFuture<'static, Result<Vec<V>, Error>> + Send + Sync;

struct Next<K, V> {
    /// The keys that it is for, with the index of each one's answer.
    keys: HashMap<K, usize>,
    answers: Shared<BoxFuture<'static, Result<Arc<Vec<V>>, Error>>>,
}

impl<K, V> Gather<K, V>
where
    K: Hash + Eq + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Statements that `run` runs: it returns one answer for each key, in their order. Each has a deadline of its own
    /// ([`db::for_callers`](crate::db::for_callers)): others wait for it.
    pub fn new(
        run: impl Fn(Vec<K>) -> BoxFuture<'static, Result<Vec<V>, Error>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            run: Box::new(run),
            next: Mutex::default(),
            running: tokio::sync::Mutex::default(),
        }))
    }

    /// The answer for a key, of a statement that began after this call.
    ///
    /// # Errors
    /// Those of the statement.
    pub async fn ask(&self, key: K) -> Result<V, Error> {
        let (index, answers) = {
            let mut next = self.0.next();
            let next = next.get_or_insert_with(|| Next {
                keys: HashMap::new(),
                answers: Arc::clone(&self.0).run_next().boxed().shared(),
            });
            let count = next.keys.len();
            let index = *next.keys.entry(key).or_insert(count);
            (index, next.answers.clone())
        };
        let answers = answers.await?;
        let answer = answers.get(index).cloned();
        answer.ok_or_else(|| Error::internal("a statement did not answer all keys"))
    }
}

impl<K, V> Inner<K, V> {
    fn next(&self) -> MutexGuard<'_, Option<Next<K, V>>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run_next(self: Arc<Self>) -> Result<Arc<Vec<V>>, Error> {
        let _running = self.running.lock().await;
        let begun = self.next().take();
        let keys = begun.map(|begun| begun.keys).unwrap_or_default();
        let mut keys: Vec<(K, usize)> = keys.into_iter().collect();
        keys.sort_by_key(|(_, index)| *index);
        let keys = keys.into_iter().map(|(key, _)| key).collect();
        (self.run)(keys).await.map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    /// Squares of numbers. A statement waits for a permit, and notes what was asked together.
    struct Squares {
        gather: Gather<u32, u32>,
        runs: Arc<Mutex<Vec<Vec<u32>>>>,
        permits: Arc<Semaphore>,
    }

    fn squares() -> Squares {
        let (runs, permits) = (Arc::default(), Arc::new(Semaphore::new(0)));
        let (noted, wanted) = (Arc::clone(&runs), Arc::clone(&permits));
        let gather = Gather::new(move |keys: Vec<u32>| {
            let (noted, wanted): (Arc<Mutex<Vec<_>>>, _) =
                (Arc::clone(&noted), Arc::clone(&wanted));
            async move {
                noted.lock().unwrap().push(keys.clone());
                wanted.acquire().await.expect("open").forget();
                if keys.contains(&0) {
                    return Err(Error::internal("zero"));
                }
                Ok(keys.into_iter().map(|key| key * key).collect())
            }
            .boxed()
        });
        Squares {
            gather,
            runs,
            permits,
        }
    }

    #[tokio::test]
    async fn calls_that_arrive_during_a_statement_share_the_next() {
        let Squares {
            gather,
            runs,
            permits,
        } = squares();
        let ask = async |key| gather.ask(key).await.expect("a square");
        let first = ask(3);
        let later = async { tokio::join!(ask(5), ask(7), ask(5)) };
        let release = async { permits.add_permits(2) };
        // They are polled in this order, so that the first one runs when the others come.
        let (first, later, ()) = tokio::join!(biased; first, later, release);
        assert_eq!((first, later), (9, (25, 49, 25)));
        assert_eq!(*runs.lock().unwrap(), [vec![3], vec![5, 7]]);
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_holds_nobody_up() {
        let Squares {
            gather,
            runs,
            permits,
        } = squares();
        // It begins, and is given up.
        assert!(gather.ask(3).now_or_never().is_none());
        assert!(gather.ask(4).now_or_never().is_none());
        permits.add_permits(1);
        assert_eq!(gather.ask(5).await.expect("a square"), 25);
        let runs = runs.lock().unwrap();
        assert!(runs.last().is_some_and(|keys| keys.contains(&5)));
    }

    #[tokio::test]
    async fn an_error_is_of_those_who_shared_it() {
        let Squares {
            gather, permits, ..
        } = squares();
        permits.add_permits(3);
        assert!(gather.ask(0).await.is_err());
        assert_eq!(gather.ask(2).await.expect("a square"), 4);
    }
}
