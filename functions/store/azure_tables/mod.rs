//! The tables in Azure Table Storage, or in its emulator, Azurite.
//!
//! `azure_data_tables` builds the requests and reads the answers. It is an older generation of the
//! SDK than the gateway's other Azure crate and is used with care (docs/storage.md says why and
//! what the way out is): `transport` is the HTTP client that it is given, `batch` the text of
//! transactions, `fault` what goes wrong, `query` filters and quoting, `entity` rows.
//!
//! Every write is an entity group transaction, also a single one: one path, one shape of refusal,
//! which names the write that failed.
//!
//! Reads are tried again by themselves, writes never: whether a write whose answer was lost was
//! made is not known, and a second insert would find the row of the first. Who writes again on
//! [`StoreError::Unavailable`] has to take [`StoreError::Exists`] for its own row where the row's
//! key is an id that only it has, as `chargeback` does.

mod batch;
mod entity;
mod fault;
mod query;
mod transport;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use azure_core_tables::{Continuable, Etag as LegacyEtag, RetryOptions, TransportOptions};
use azure_data_tables::clients::{TableClient, TableServiceClient, TableServiceClientBuilder};
use azure_data_tables::{Filter, IfMatchCondition, Top};
use azure_storage::{CloudLocation, StorageCredentials};
use futures_util::StreamExt;
use tokio::sync::OnceCell;

use self::entity::Entity;
use self::fault::Fault;
use self::transport::{Asker, Transport};
use super::{Answer, Change, Etag, Key, Page, Range, Row, Store, StoreError, Table, Write, bounds};
use crate::azure::own_token::OwnToken;
use crate::config::Endpoint;

/// What the gateway's token for Table Storage is asked for.
pub const SCOPE: &str = "https://storage.azure.com/.default";

/// The emulator's account; its key is published, and known to the crate
/// (<https://learn.microsoft.com/azure/storage/common/storage-use-azurite>).
const EMULATOR_ACCOUNT: &str = azure_storage::clients::EMULATOR_ACCOUNT;

/// How often a read is tried, and the pause after the first time, doubled each time.
const READ_ATTEMPTS: u32 = 3;
const READ_PAUSE: Duration = Duration::from_millis(100);

/// Longest that a read may take, with all its attempts and empty pages.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Tables in Table Storage.
pub struct AzureTables {
    client: TableServiceClient,
    url: String,
    /// Which tables are known to be there.
    made: [OnceCell<()>; Table::ALL.len()],
}

impl fmt::Debug for AzureTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureTables")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl AzureTables {
    /// The tables of a storage account, with the gateway's own identity.
    ///
    /// # Errors
    /// When the system has no usable certificate roots.
    pub fn account(endpoint: &Endpoint, token: Arc<OwnToken>) -> Result<Self, String> {
        let account = endpoint.host().split('.').next().unwrap_or_default();
        let url = endpoint.to_string();
        // The transport adds the token.
        let credentials = StorageCredentials::anonymous();
        Self::new(url, account, credentials, Asker::Token(token))
    }

    /// The tables of an emulator on this machine, with its published key.
    ///
    /// # Errors
    /// As [`Self::account`].
    pub fn emulator(endpoint: &Endpoint) -> Result<Self, String> {
        let url = format!("{endpoint}/{EMULATOR_ACCOUNT}");
        let credentials = StorageCredentials::emulator();
        Self::new(url, EMULATOR_ACCOUNT, credentials, Asker::Signed)
    }

    fn new(
        url: String,
        account: &str,
        credentials: StorageCredentials,
        asker: Asker,
    ) -> Result<Self, String> {
        let transport = Transport::new(crate::azure::http_client()?, asker);
        let location = CloudLocation::Custom {
            account: account.to_owned(),
            uri: url.clone(),
        };
        let client = TableServiceClientBuilder::with_location(location, credentials)
            .transport(TransportOptions::new(Arc::new(transport)))
            .retry(RetryOptions::none())
            .build();
        Ok(Self {
            client,
            url,
            made: Default::default(),
        })
    }

    /// Makes the tables that are missing.
    ///
    /// # Errors
    /// When the service can't be reached or refuses; each call then tries again by itself.
    pub async fn make_tables(&self) -> Result<(), StoreError> {
        for table in Table::ALL {
            self.table(table).await?;
        }
        Ok(())
    }

    /// A table, which is made where it is missing.
    async fn table(&self, table: Table) -> Result<TableClient, StoreError> {
        let client = self.client.table_client(table.name());
        let made = Table::ALL.iter().position(|one| *one == table);
        if let Some(made) = made.and_then(|index| self.made.get(index)) {
            made.get_or_try_init(|| make(&client)).await?;
        }
        Ok(client)
    }

    async fn get_row(&self, table: Table, key: &Key) -> Result<Option<Row>, StoreError> {
        // Table Storage has no such row, and its URL would be another.
        if bounds::key(&key.partition).is_err() || bounds::key(&key.row).is_err() {
            return Ok(None);
        }
        let table = self.table(table).await?;
        let row = table
            .partition_key_client(query::quoted(&key.partition))
            .entity_client(query::quoted(&key.row));
        let answer = again(|| async { row.get::<Entity>().await.map_err(|e| Fault::of(&e)) }).await;
        match answer {
            Ok(answer) => entity::decode(answer.entity, Some(answer.etag.to_string())).map(Some),
            Err(fault) if fault.is_no_row() => Ok(None),
            Err(fault) => Err(fault.of_read()),
        }
    }

    async fn read_page(&self, table: Table, range: &Range) -> Result<Page, StoreError> {
        bounds::range(range)?;
        let table = self.table(table).await?;
        again(|| page(&table, range))
            .await
            .map_err(|fault| fault.of_read())?
    }

    async fn write_all(
        &self,
        table: Table,
        partition: &str,
        writes: &[Write],
    ) -> Result<(), StoreError> {
        bounds::transaction(partition, writes)?;
        let table = self.table(table).await?;
        let mut transaction = table
            .partition_key_client(query::quoted(partition))
            .transaction();
        let odd = |e: azure_core_tables::Error| StoreError::Refused(e.to_string());
        for write in writes {
            let entity = |fields| entity::encode(partition, &write.row, fields);
            let row = query::quoted(&write.row);
            transaction = match &write.change {
                Change::Insert(fields) => transaction.insert(entity(fields)?),
                Change::Upsert(fields) => transaction.insert_or_replace(row, entity(fields)?),
                Change::Replace(fields, etag) => {
                    transaction.update(row, entity(fields)?, Some(condition(Some(etag))?))
                }
                Change::Delete(etag) => transaction.delete(row, Some(condition(etag.as_ref())?)),
            }
            .map_err(odd)?;
        }
        let answer = transaction.await;
        let answer = answer.map_err(|e| Fault::of(&e).of_write(writes))?;
        let made = &answer.operation_responses;
        if made.len() == writes.len() && made.iter().all(|one| one.status_code.is_success()) {
            return Ok(());
        }
        Err(StoreError::Unavailable(format!(
            "Table Storage answers {} of {} writes",
            made.len(),
            writes.len()
        )))
    }
}

impl Store for AzureTables {
    fn get<'a>(&'a self, table: Table, key: &'a Key) -> Answer<'a, Option<Row>> {
        Box::pin(within_time(self.get_row(table, key)))
    }

    fn read<'a>(&'a self, table: Table, range: &'a Range) -> Answer<'a, Page> {
        Box::pin(within_time(self.read_page(table, range)))
    }

    fn write<'a>(&'a self, table: Table, partition: &'a str, writes: Vec<Write>) -> Answer<'a, ()> {
        Box::pin(async move { self.write_all(table, partition, &writes).await })
    }
}

async fn make(table: &TableClient) -> Result<(), StoreError> {
    let made = again(|| async { table.create().await.map_err(|e| Fault::of(&e)) }).await;
    match made {
        Ok(_) => Ok(()),
        Err(fault) if fault.is_table_there() => Ok(()),
        Err(fault) => Err(fault.of_read()),
    }
}

/// Rows from where the range begins, with empty pages passed over. The service may answer with
/// fewer rows than asked for, or none, and say that there are more.
async fn page(table: &TableClient, range: &Range) -> Result<Result<Page, StoreError>, Fault> {
    // At most 1,000.
    let limit = u32::try_from(range.limit).unwrap_or(u32::MAX);
    let mut asked = table.query().top(Top::new(limit));
    if let Some(filter) = query::filter(range) {
        asked = asked.filter(Filter::new(filter));
    }
    let mut answers = asked.into_stream::<Entity>();
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(|e| Fault::of(&e))?;
        let goes_on = answer.continuation().is_some();
        let rows = answer
            .entities
            .into_iter()
            .map(|entity| entity::decode(entity, None));
        let rows: Vec<Row> = match rows.collect() {
            Ok(rows) => rows,
            Err(damaged) => return Ok(Err(damaged)),
        };
        if !rows.is_empty() || !goes_on {
            let last = rows.last().map(|row| row.key.clone());
            let next = last.filter(|_| goes_on);
            return Ok(Ok(Page { rows, next }));
        }
    }
    Ok(Ok(Page::default()))
}

/// The version that a write is made for; `None`: any that is there.
fn condition(etag: Option<&Etag>) -> Result<IfMatchCondition, StoreError> {
    match etag {
        None => Ok(IfMatchCondition::Any),
        // It stands on a line of the transaction's text.
        Some(Etag(etag)) if etag.is_empty() || etag.chars().any(char::is_control) => {
            Err(StoreError::Refused("a version that is none".into()))
        }
        Some(Etag(etag)) => Ok(IfMatchCondition::Etag(LegacyEtag::from(etag.clone()))),
    }
}

/// Tries what changes nothing, or nothing twice, again while it may work soon.
async fn again<T, F: Future<Output = Result<T, Fault>>>(
    attempt: impl Fn() -> F,
) -> Result<T, Fault> {
    let mut pause = READ_PAUSE;
    for _ in 1..READ_ATTEMPTS {
        match attempt().await {
            Err(fault) if fault.is_passing() => tokio::time::sleep(pause).await,
            done => return done,
        }
        pause *= 2;
    }
    attempt().await
}

async fn within_time<T>(
    read: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let read = tokio::time::timeout(READ_TIMEOUT, read).await;
    read.unwrap_or_else(|_| {
        Err(StoreError::Unavailable(format!(
            "Table Storage takes more than {} s",
            READ_TIMEOUT.as_secs()
        )))
    })
}
