//! The durable backend: one redb file, one transaction a commit, reopened after a failure.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Backend, BackendError, Contents, Put};

const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// Reads come from memory, so the file's cache only serves the writer.
const CACHE_BYTES: usize = 4 << 20;

/// A redb file. After a failed commit redb refuses further work, so the file is opened anew for the next one.
pub(crate) struct File {
    path: PathBuf,
    database: Option<Database>,
}

impl File {
    /// Opens or creates the file and reads all of it.
    ///
    /// # Errors
    /// When the file cannot be opened, created or read.
    pub(crate) fn open(path: &Path) -> Result<(Self, Contents), BackendError> {
        let database = database(path)?;
        let contents = read(&database)
            .map_err(|cause| BackendError::new(format!("reading {}", path.display()), cause))?;
        Ok((
            Self {
                path: path.to_owned(),
                database: Some(database),
            },
            contents,
        ))
    }
}

impl Backend for File {
    fn commit(&mut self, puts: &[Put], reserved: u64) -> Result<(), BackendError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => database(&self.path)?,
        };
        write(&database, puts, reserved).map_err(|cause| {
            BackendError::new(format!("writing {}", self.path.display()), cause)
        })?;
        self.database = Some(database);
        Ok(())
    }
}

fn database(path: &Path) -> Result<Database, BackendError> {
    let failed = |cause: &dyn std::fmt::Display| {
        BackendError::new(format!("opening {}", path.display()), cause)
    };
    // Secrets are in it: the file is its owner's alone, whoever else may enter the folder.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|cause| failed(&cause))?;
    let file = redb::backends::FileBackend::new(file).map_err(|cause| failed(&cause))?;
    redb::Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(file)
        .map_err(|cause| failed(&cause))
}

fn write(database: &Database, puts: &[Put], reserved: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        for (key, object) in puts {
            match object {
                Some(object) => objects.insert(key.as_str(), object.as_slice())?,
                None => objects.remove(key.as_str())?,
            };
        }
        transaction
            .open_table(NUMBERS)?
            .insert("reserved", reserved)?;
    }
    transaction.commit()?;
    Ok(())
}

fn read(database: &Database) -> Result<Contents, redb::Error> {
    let transaction = database.begin_read()?;
    let mut contents = Contents::default();
    match transaction.open_table(OBJECTS) {
        Ok(objects) => {
            for entry in objects.iter()? {
                let (key, object) = entry?;
                contents
                    .entries
                    .push((key.value().to_owned(), object.value().to_vec()));
            }
        }
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(contents),
        Err(other) => return Err(other.into()),
    }
    if let Some(reserved) = transaction.open_table(NUMBERS)?.get("reserved")? {
        contents.reserved = reserved.value();
    }
    Ok(contents)
}
