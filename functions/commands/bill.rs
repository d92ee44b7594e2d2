//! `spillway bill`.

use std::io;
use std::path::{Path, PathBuf};

use spillway::billing::command::{Request, What, run as write_bill};
use spillway::billing::{Billing, Period, Span};
use spillway::config::{Storage, StoragePlace};
use spillway::host::clock::Clock;
use spillway::serve::{Place, open_store};

use super::args::BillArgs;
use super::{read, run};

pub(crate) fn bill(args: BillArgs) -> io::Result<()> {
    let now = Clock::new().now();
    let span = Span {
        month: args.month.as_deref(),
        from: args.from.as_deref(),
        to: args.to.as_deref(),
    };
    let what = match (args.rows, args.spill, args.price_proposals) {
        (true, ..) => What::Calls,
        (_, true, _) => What::Spill,
        (.., true) => What::PriceProposals,
        _ => What::Bill,
    };
    let request = Request {
        period: Period::read(span, now).map_err(io::Error::other)?,
        app: args.app.map(Into::into),
        by: args.by,
        format: args.format,
        decimals: args.decimals,
        what,
    };
    run(async move {
        let billing = billing_of(args.config.as_deref(), args.data)?;
        let mut out = io::BufWriter::new(io::stdout());
        write_bill(&billing, request, now, &mut out).await
    })
}

fn billing_of(config: Option<&Path>, data: Option<PathBuf>) -> io::Result<Billing> {
    let (storage, config) = match (data, config) {
        (Some(folder), None) => {
            // The simulated PTUs of `spillway local` cost nothing.
            let storage = Storage {
                tables: Some(StoragePlace::Embedded(folder)),
                ..Storage::default()
            };
            (storage, None)
        }
        (data, config) => {
            let config = read(config)?;
            let mut storage = config.storage.clone();
            storage.tables = data.map(StoragePlace::Embedded).or(storage.tables);
            (storage, Some(config))
        }
    };
    let store = open_store(Place::Local, &storage)?;
    let store = store.ok_or_else(|| {
        io::Error::other("the configuration has no storage.tables: nothing is kept of calls")
    })?;
    Ok(match config {
        Some(config) => Billing::new(&config, store),
        None => Billing::without_ptus(store),
    })
}
