//! Every test of the store runs on SQLite and on PostgreSQL.

pub mod postgres;

use lyceum_store::Store;

/// Where a store is. Opening it again finds what was written.
pub struct Place {
    url: String,
    _dir: Option<tempfile::TempDir>,
}

impl Place {
    /// A file of its own.
    pub fn sqlite() -> Place {
        let dir = tempfile::tempdir().unwrap();
        Place {
            url: format!("sqlite:{}", dir.path().join("db").display()),
            _dir: Some(dir),
        }
    }

    /// A database of its own.
    pub fn postgres(server: &postgres::Postgres, name: &str) -> Place {
        Place {
            url: server.database(name),
            _dir: None,
        }
    }

    /// As [`Store::open`] takes it.
    #[allow(dead_code)] // Not every test opens it in a way of its own.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Opens it.
    pub async fn open(&self) -> Store {
        Store::open(&self.url).await.unwrap()
    }
}

/// `test(place)` once per name on SQLite, each a test, and all of them in one test on PostgreSQL, whose
/// server takes a second or two to start.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $name() {
                    super::$name(&crate::common::Place::sqlite()).await;
                }
            )+
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn all_of_it_on_postgresql() {
            let server = common::postgres::Postgres::start();
            $(
                println!("{}", stringify!($name));
                $name(&common::Place::postgres(&server, stringify!($name))).await;
            )+
        }
    };
}
pub(crate) use on_both;
