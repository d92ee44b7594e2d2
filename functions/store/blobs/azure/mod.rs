//! Blobs in Azure Blob Storage, or in its emulator, Azurite, by the crate `azure_storage_blob`.
//!
//! What is asked and changes nothing twice is tried again by itself, an append or a put that needs
//! its place free never: whether one whose answer was lost was made is not known.

mod asker;
mod fault;

use std::fmt;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use azure_core::http::{ClientOptions, Etag, RetryOptions, Transport, Url};
use azure_storage_blob::models::{
    AppendBlobClientAppendBlockOptions, AppendBlobClientCreateOptions, BlobClientDownloadOptions,
    BlobClientGetPropertiesResultHeaders, BlobContainerClientListBlobsOptions, BlobItem,
    BlockBlobClientUploadOptions, BlockLookupList,
};
use azure_storage_blob::{BlobClient, BlobContainerClient, BlobContainerClientOptions};
use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio::sync::OnceCell;

use self::asker::Asker;
use self::fault::Fault;
use super::bounds::{self, MAX_PAGE, MAX_PART};
use super::{Answer, Blob, BlobError, Blobs, Container, Listing, Seen, Version, When};
use crate::azure::own_token::OwnToken;
use crate::config::Endpoint;
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;

/// The emulator's account (<https://learn.microsoft.com/azure/storage/common/storage-use-azurite>).
const EMULATOR_ACCOUNT: &str = azure_storage::clients::EMULATOR_ACCOUNT;

/// The version of the service's API: the newest that Azurite 3.35 knows, which is all that is needed.
const VERSION: &str = "2025-11-05";

/// How often what may be repeated is tried, and the pause after the first time, doubled each time.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(100);

/// Longest that one call may take, with all its attempts.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Parts of a large blob that are sent at the same time.
const PARALLEL: NonZero<usize> = NonZero::new(2).unwrap();
const PARTITION: NonZero<u64> = NonZero::new(MAX_PART as u64).unwrap();

/// Blobs in Blob Storage.
pub struct AzureBlobs {
    url: String,
    containers: [(BlobContainerClient, OnceCell<()>); Container::ALL.len()],
}

impl fmt::Debug for AzureBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureBlobs")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl AzureBlobs {
    /// The blobs of a storage account, asked with the gateway's own token for
    /// [`crate::store::azure_tables::SCOPE`].
    ///
    /// # Errors
    /// When there is no usable HTTP client.
    pub fn account(endpoint: &Endpoint, token: Arc<OwnToken>) -> Result<Self, String> {
        Self::new(endpoint.to_string(), Asker::Token(token, Clock::new()))
    }

    /// The blobs of an emulator on this machine, with its published key.
    ///
    /// # Errors
    /// As [`Self::account`].
    pub fn emulator(endpoint: &Endpoint) -> Result<Self, String> {
        let url = format!("{endpoint}/{EMULATOR_ACCOUNT}");
        Self::new(url, Asker::Emulator(Clock::new()))
    }

    fn new(url: String, asker: Asker) -> Result<Self, String> {
        let client = crate::azure::http_client()?;
        let options = ClientOptions {
            per_try_policies: vec![Arc::new(asker)],
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::new(client))),
            ..ClientOptions::default()
        };
        let container = |container: Container| {
            let place = Url::parse(&format!("{url}/{}", container.name()));
            let place = place.map_err(|e| e.to_string())?;
            let options = BlobContainerClientOptions {
                client_options: options.clone(),
                version: VERSION.to_owned(),
            };
            let client = BlobContainerClient::new(place, None, Some(options));
            Ok::<_, String>((client.map_err(|e| e.to_string())?, OnceCell::new()))
        };
        let [prompts, files, replies, answers, config, history] = Container::ALL.map(container);
        Ok(Self {
            containers: [prompts?, files?, replies?, answers?, config?, history?],
            url,
        })
    }

    /// Makes the containers that are missing.
    ///
    /// # Errors
    /// When the service can't be reached or refuses; each call then tries again by itself.
    pub async fn make_containers(&self) -> Result<(), BlobError> {
        // The one of the configuration is its operators', and only read.
        let own = Container::ALL.into_iter();
        for container in own.filter(|one| *one != Container::Config) {
            self.container(container).await?;
        }
        Ok(())
    }

    /// A container, and whether it is known to be there.
    fn any_container(
        &self,
        container: Container,
    ) -> Result<&(BlobContainerClient, OnceCell<()>), BlobError> {
        let all = Container::ALL.into_iter().zip(&self.containers);
        let found = all
            .filter(|(one, _)| *one == container)
            .map(|(_, of)| of)
            .next();
        found.ok_or_else(|| BlobError::Refused("there is no such container".into()))
    }

    /// A container, which is made where it is missing.
    async fn container(&self, container: Container) -> Result<&BlobContainerClient, BlobError> {
        let (client, made) = self.any_container(container)?;
        made.get_or_try_init(|| async {
            match again(|| async { client.create(None).await }).await {
                Err(fault) if !fault.is_there() => Err(fault.into_error()),
                _ => Ok(()),
            }
        })
        .await?;
        Ok(client)
    }

    async fn blob(&self, blob: &Blob) -> Result<BlobClient, BlobError> {
        bounds::name(blob.name())?;
        let container = self.container(blob.container()).await?;
        Ok(container.blob_client(blob.name()))
    }

    async fn put_whole(&self, blob: &Blob, bytes: Bytes, when: When) -> Result<(), BlobError> {
        bounds::whole(bytes.len())?;
        let client = self.blob(blob).await?;
        let upload = || async {
            let options = BlockBlobClientUploadOptions {
                parallel: Some(PARALLEL),
                partition_size: Some(PARTITION),
                ..BlockBlobClientUploadOptions::default()
            };
            let options = match when {
                When::Always => options,
                When::Absent => options.if_not_exists(),
            };
            let content = bytes.clone().into();
            client.upload(content, Some(options)).await
        };
        let put = match when {
            When::Always => again(upload).await,
            When::Absent => upload().await.map_err(Fault),
        };
        match put {
            Ok(_) => Ok(()),
            Err(fault) if fault.is_there() => Err(BlobError::Exists),
            Err(fault) => Err(fault.into_error()),
        }
    }

    async fn stage_block(&self, blob: &Blob, number: u32, bytes: Bytes) -> Result<(), BlobError> {
        bounds::block(number)?;
        bounds::part(bytes.len())?;
        let client = self.blob(blob).await?.block_blob_client();
        let (id, length) = (block_id(number), length(&bytes));
        let staged = again(|| client.stage_block(&id, length, bytes.clone().into(), None)).await;
        staged.map(drop).map_err(Fault::into_error)
    }

    async fn commit_blocks(&self, blob: &Blob, blocks: u32) -> Result<(), BlobError> {
        let client = self.blob(blob).await?.block_blob_client();
        let commit = || async {
            let list = BlockLookupList {
                latest: Some(
                    (0..blocks)
                        .map(|number| block_id(number).to_vec())
                        .collect(),
                ),
                ..BlockLookupList::default()
            };
            client.commit_block_list(list.try_into()?, None).await
        };
        let committed = again(commit).await;
        committed.map(drop).map_err(Fault::into_error)
    }

    async fn append_block(&self, blob: &Blob, at: u64, bytes: Bytes) -> Result<(), BlobError> {
        bounds::part(bytes.len())?;
        let client = self.blob(blob).await?.append_blob_client();
        let append = || async {
            let options = AppendBlobClientAppendBlockOptions {
                append_position: i64::try_from(at).ok(),
                ..AppendBlobClientAppendBlockOptions::default()
            };
            let done = client.append_block(bytes.clone().into(), length(&bytes), Some(options));
            done.await.map_err(Fault)
        };
        let appended = match append().await {
            Err(fault) if fault.is_no_blob() && at == 0 => {
                let options = AppendBlobClientCreateOptions::default().if_not_exists();
                match client.create(Some(options)).await.map_err(Fault) {
                    // Made by another one, who may not have appended yet.
                    Err(fault) if !fault.is_there() => return Err(fault.into_error()),
                    _ => append().await,
                }
            }
            appended => appended,
        };
        match appended {
            Ok(_) => Ok(()),
            Err(fault) if fault.is_end_elsewhere() || fault.is_no_blob() => {
                Err(BlobError::EndsElsewhere)
            }
            Err(fault) => Err(fault.into_error()),
        }
    }

    async fn length_of(&self, blob: &Blob) -> Result<Option<u64>, BlobError> {
        let client = self.blob(blob).await?;
        match again(|| async { client.get_properties(None).await?.content_length() }).await {
            Ok(Some(length)) => Ok(Some(length)),
            Ok(None) => Err(BlobError::Unavailable(format!("{blob} has no length"))),
            Err(fault) if fault.is_no_blob() => Ok(None),
            Err(fault) => Err(fault.into_error()),
        }
    }

    async fn read_range(&self, blob: &Blob, range: Range<u64>) -> Result<Option<Bytes>, BlobError> {
        let most = bounds::range(&range)?;
        if most == 0 {
            let length = self.length_of(blob).await?;
            return Ok(length.map(|_| Bytes::new()));
        }
        let client = self.blob(blob).await?;
        let download = || async {
            let mut buffer = vec![0; most];
            let options = BlobClientDownloadOptions {
                range: Some(range.clone().into()),
                parallel: NonZero::new(1),
                partition_size: NonZero::new(MAX_PART),
                ..BlobClientDownloadOptions::default()
            };
            let read = client.download_into(&mut buffer, Some(options)).await?;
            buffer.truncate(read.len);
            Ok(Bytes::from(buffer))
        };
        match again(download).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(fault) if fault.is_no_blob() => Ok(None),
            Err(fault) if fault.is_beyond() => Ok(Some(Bytes::new())),
            Err(fault) => Err(fault.into_error()),
        }
    }

    async fn look_at(&self, blob: &Blob, known: Option<&str>) -> Result<Seen, BlobError> {
        bounds::name(blob.name())?;
        // Who may only read can't make the container, nor need it be there.
        let (container, _) = self.any_container(blob.container())?;
        let client = container.blob_client(blob.name());
        let download = || async {
            // One byte more, to tell a blob that is too large.
            let mut buffer = vec![0; MAX_PART + 1];
            let options = BlobClientDownloadOptions {
                if_none_match: known.map(Etag::from),
                parallel: NonZero::new(1),
                partition_size: NonZero::new(buffer.len()),
                ..BlobClientDownloadOptions::default()
            };
            let read = client.download_into(&mut buffer, Some(options)).await?;
            buffer.truncate(read.len);
            Ok((read.properties, Bytes::from(buffer)))
        };
        let (properties, bytes) = match again(download).await {
            Ok(read) => read,
            Err(fault) if fault.is_unchanged() => return Ok(Seen::Same),
            Err(fault) if fault.is_no_blob() || fault.is_no_container() => {
                return Ok(Seen::Absent);
            }
            Err(fault) => return Err(fault.into_error()),
        };
        bounds::range(&(0..length(&bytes)))?;
        let seconds = properties.last_modified.map(|at| at.unix_timestamp());
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let (Some(tag), Some(seconds)) = (properties.etag, seconds) else {
            let why = format!("{blob} has no ETag, or no time");
            return Err(BlobError::Unavailable(why));
        };
        Ok(Seen::Changed(Version {
            tag: tag.to_string(),
            written: Timestamp::from_unix_ms(seconds.saturating_mul(1000)),
            bytes,
        }))
    }

    async fn delete_blob(&self, blob: &Blob) -> Result<bool, BlobError> {
        let client = self.blob(blob).await?;
        match client.delete(None).await.map_err(Fault) {
            Ok(_) => Ok(true),
            Err(fault) if fault.is_no_blob() => Ok(false),
            Err(fault) => Err(fault.into_error()),
        }
    }

    async fn list_page(
        &self,
        container: Container,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Listing, BlobError> {
        bounds::prefix(prefix)?;
        let client = self.container(container).await?;
        let page = || async {
            let options = BlobContainerClientListBlobsOptions {
                marker: after.map(str::to_owned),
                maxresults: i32::try_from(MAX_PAGE).ok(),
                prefix: Some(prefix.to_owned()).filter(|prefix| !prefix.is_empty()),
                ..BlobContainerClientListBlobsOptions::default()
            };
            let mut pages = client.list_blobs(Some(options))?.into_pages();
            pages
                .try_next()
                .await?
                .map(|page| page.into_model())
                .transpose()
        };
        let page = again(page).await.map_err(Fault::into_error)?;
        Ok(page.map_or_else(Listing::default, |page| Listing {
            blobs: page.blob_items.into_iter().filter_map(named).collect(),
            next: page.next_marker.filter(|marker| !marker.is_empty()),
        }))
    }
}

/// A blob's name and length.
fn named(item: BlobItem) -> Option<(String, u64)> {
    let length = item
        .properties
        .and_then(|properties| properties.content_length);
    Some((item.name?, length.unwrap_or_default()))
}

/// All of a blob's block ids have the same length.
const fn block_id(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or_default()
}

impl Blobs for AzureBlobs {
    fn put<'a>(&'a self, blob: &'a Blob, bytes: Bytes, when: When) -> Answer<'a, ()> {
        Box::pin(within_time(self.put_whole(blob, bytes, when)))
    }

    fn stage<'a>(&'a self, blob: &'a Blob, number: u32, bytes: Bytes) -> Answer<'a, ()> {
        Box::pin(within_time(self.stage_block(blob, number, bytes)))
    }

    fn commit<'a>(&'a self, blob: &'a Blob, blocks: u32) -> Answer<'a, ()> {
        Box::pin(within_time(self.commit_blocks(blob, blocks)))
    }

    fn append<'a>(&'a self, blob: &'a Blob, at: u64, bytes: Bytes) -> Answer<'a, ()> {
        Box::pin(within_time(self.append_block(blob, at, bytes)))
    }

    fn length<'a>(&'a self, blob: &'a Blob) -> Answer<'a, Option<u64>> {
        Box::pin(within_time(self.length_of(blob)))
    }

    fn read<'a>(&'a self, blob: &'a Blob, range: Range<u64>) -> Answer<'a, Option<Bytes>> {
        Box::pin(within_time(self.read_range(blob, range)))
    }

    fn look<'a>(&'a self, blob: &'a Blob, known: Option<&'a str>) -> Answer<'a, Seen> {
        Box::pin(within_time(self.look_at(blob, known)))
    }

    fn delete<'a>(&'a self, blob: &'a Blob) -> Answer<'a, bool> {
        Box::pin(within_time(self.delete_blob(blob)))
    }

    fn list<'a>(
        &'a self,
        container: Container,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> Answer<'a, Listing> {
        Box::pin(within_time(self.list_page(container, prefix, after)))
    }
}

/// Tries what may be repeated again while it may work soon.
async fn again<T, F: Future<Output = azure_core::Result<T>>>(
    attempt: impl Fn() -> F,
) -> Result<T, Fault> {
    let mut pause = PAUSE;
    for _ in 1..ATTEMPTS {
        match attempt().await.map_err(Fault) {
            Err(fault) if fault.is_passing() => tokio::time::sleep(pause).await,
            done => return done,
        }
        pause *= 2;
    }
    attempt().await.map_err(Fault)
}

async fn within_time<T>(work: impl Future<Output = Result<T, BlobError>>) -> Result<T, BlobError> {
    let work = tokio::time::timeout(TIMEOUT, work).await;
    work.unwrap_or_else(|_| {
        Err(BlobError::Unavailable(format!(
            "Blob Storage takes more than {} s",
            TIMEOUT.as_secs()
        )))
    })
}
