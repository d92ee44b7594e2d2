use super::*;

/// 2026-11-23T17:06:30.000Z.
const NOW: Timestamp = Timestamp::from_unix_ms(1_795_453_590_000);

fn item(meter: &str, price: &str, unit: &str, region: &str, from: &str) -> Item {
    serde_json::from_value(serde_json::json!({
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": price.parse::<serde_json::Number>().unwrap(),
        "unitOfMeasure": unit,
        "armRegionName": region,
        "effectiveStartDate": from,
        "meterName": meter,
        "productName": "Azure OpenAI",
        "type": "Consumption",
    }))
    .unwrap()
}

fn proposals(items: &[Item]) -> Vec<Proposal> {
    let mut retail = Retail::default();
    items.iter().for_each(|item| retail.note(item, NOW));
    retail.proposals(NOW)
}

#[test]
fn each_meter_of_the_list_is_read_as_its_row_says() {
    for row in list::payg() {
        let meter = Meter::read(row.meter).unwrap_or_else(|| panic!("{}", row.meter));
        assert_eq!(
            (meter.class, meter.sort),
            (row.region_class, SortOfPrice::Input),
            "{row:?}"
        );
        let of = listed_meters()[&meter.of];
        assert_eq!(
            (of.model, of.up_to_input),
            (row.model, row.up_to_input),
            "{row:?}"
        );
    }
}

#[test]
fn what_is_no_plain_meter_of_a_model_is_passed_over() {
    for name in [
        "gpt 4o 1120 Batch Inp glbl Tokens",
        "gpt 4o 1120 pp Inp glbl Tokens",
        "gpt-4o-mini-0718-ft Inp regnl Tokens",
        "gpt 4o 1120 Inp Tokens",
        "gpt 4o 1120 Inp Outp glbl Tokens",
        "gpt 4o 1120 cached Outp glbl Tokens",
    ] {
        let other = item(name, "77", "1K", "eastus", "2026-01-01T00:00:00Z");
        assert_eq!(proposals(&[other]), [], "{name}");
    }
}

#[test]
fn a_price_that_is_the_lists_proposes_nothing() {
    let same = [
        item(
            "gpt 4o 1120 Inp glbl Tokens",
            "0.0025",
            "1K",
            "eastus",
            "2024-12-01T00:00:00Z",
        ),
        item(
            "gpt 4.1 nano cached Inp DZone Tokens",
            "2.8e-05",
            "1K",
            "eastus",
            "2025-04-01T00:00:00Z",
        ),
        item(
            "5.4 opt Dz 1M Tokens",
            "16.5",
            "1M",
            "eastus",
            "2026-03-01T00:00:00Z",
        ),
        item(
            "5.4 longco opt Gl 1M Tokens",
            "22.5",
            "1M",
            "eastus",
            "2026-03-01T00:00:00Z",
        ),
        item(
            "text embedding 3 small DZ Tokens",
            "2.2e-05",
            "1K",
            "eastus",
            "2026-02-01T00:00:00Z",
        ),
        item(
            "Provisioned Managed Regional Unit",
            "2.2",
            "1/Hour",
            "swedencentral",
            "2025-09-01T00:00:00Z",
        ),
    ];
    assert_eq!(proposals(&same), []);
    let mut retail = Retail::default();
    same.iter().for_each(|item| retail.note(item, NOW));
    assert_eq!(retail.len(), same.len(), "each of them was read");
}

#[test]
fn a_price_that_changed_is_proposed_with_its_regions() {
    let changed = ["eastus", "westus"].map(|region| {
        item(
            "gpt 4o 1120 Inp glbl Tokens",
            "0.002",
            "1K",
            region,
            "2026-11-01T00:00:00Z",
        )
    });
    let [proposal] = &proposals(&changed)[..] else {
        panic!("one proposal")
    };
    assert_eq!(proposal.model, "gpt-4o");
    assert_eq!(
        (proposal.listed.as_deref(), &*proposal.retail),
        (Some("2.5"), "2")
    );
    assert_eq!(
        (&*proposal.from, &proposal.regions[..]),
        (
            "2026-11-01",
            &["eastus".to_owned(), "westus".to_owned()][..]
        )
    );
}

#[test]
fn the_latest_price_in_force_counts_and_two_of_one_day_do_not() {
    let old = item(
        "gpt 4o 1120 Inp glbl Tokens",
        "0.0025",
        "1K",
        "eastus",
        "2024-12-01T00:00:00Z",
    );
    let new = item(
        "gpt 4o 1120 Inp glbl Tokens",
        "0.002",
        "1K",
        "eastus",
        "2026-11-01T00:00:00Z",
    );
    let coming = item(
        "gpt 4o 1120 Inp glbl Tokens",
        "0.001",
        "1K",
        "eastus",
        "2026-12-01T00:00:00Z",
    );
    let found = proposals(&[new.clone(), old.clone(), coming]);
    assert_eq!(found[0].retail, "2");
    let other = item(
        "gpt 4o 1120 Inp glbl Tokens",
        "0.003",
        "1K",
        "eastus",
        "2026-11-01T00:00:00Z",
    );
    assert_eq!(proposals(&[old, new, other]), []);
}

#[test]
fn a_new_model_is_noted_as_unlisted() {
    let mut retail = Retail::default();
    retail.note(
        &item(
            "7 nova inp Gl 1M Tokens",
            "1",
            "1M",
            "eastus",
            "2026-11-01T00:00:00Z",
        ),
        NOW,
    );
    assert_eq!(retail.unlisted().collect::<Vec<_>>(), ["7 nova"]);
    assert_eq!(retail.proposals(NOW), []);
}

#[test]
fn other_currencies_reservations_and_products_do_not_count() {
    let good = item(
        "gpt 4o 1120 Inp glbl Tokens",
        "0.002",
        "1K",
        "eastus",
        "2026-11-01T00:00:00Z",
    );
    let mut others = vec![good.clone(); 3];
    others[0].currency_code = "EUR".into();
    others[1].price_type = "Reservation".into();
    others[2].product_name = "Azure Grok Models".into();
    assert_eq!(proposals(&others), []);
    assert_eq!(proposals(&[good]).len(), 1);
}
