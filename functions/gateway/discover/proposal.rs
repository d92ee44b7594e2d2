//! The text of a proposal.

use std::collections::HashSet;
use std::fmt::Write;

use super::super::event::Kind;
use super::super::price::RegionClass;
use super::{Account, Deployment};

/// Longest name that the configuration takes, characters.
const MAX_NAME: usize = 64;

/// What a proposal begins with. It is open, so that it can be tried where it was made; a gateway that
/// others can reach refuses to start with it.
const HEAD: &str = "\
# Proposed from what the resource manager says. Models are called by their own names; where a model has
# provisioned deployments, these are tried first.

[auth]
mode = \"off\"    # for this machine only: take it out, and add an [[app]] for each app (spillway key new NAME)

";

/// How a deployment is paid for, and where its calls may be processed.
struct Sort {
    kind: Kind,
    class: RegionClass,
}

/// The proposed `spillway.toml`.
pub fn propose(accounts: &[Account]) -> String {
    let mut text = HEAD.to_owned();
    let mut names = HashSet::new();
    for account in accounts {
        let name = unique(&account.name, &mut names);
        backend(&mut text, account, &name, accounts);
    }
    text
}

/// The name, or with a number where it has been given already.
fn unique(name: &str, names: &mut HashSet<String>) -> String {
    let mut unique = name.to_owned();
    let mut count = 1;
    while !names.insert(unique.clone()) {
        count += 1;
        unique = format!("{name}-{count}");
    }
    unique
}

fn backend(text: &mut String, account: &Account, name: &str, all: &[Account]) {
    let endpoint = account.endpoint().trim_end_matches('/');
    if let Some(why) = unusable(account, name, endpoint) {
        return comment(text, &format!("{} is left out: {why}.\n", account.name));
    }
    text.push_str("[[backend]]\n");
    pair(text, "name", name);
    pair(text, "endpoint", endpoint);
    if !account.location.is_empty() {
        pair(text, "region", &account.location);
    }
    pair(text, "resource_id", &account.id);
    for one in &account.deployments {
        match read(one) {
            Ok(sort) => deployment(text, one, &sort, all),
            Err(why) => comment(text, &format!("{} is left out: {why}.", one.name)),
        }
    }
    text.push('\n');
}

fn unusable(account: &Account, name: &str, endpoint: &str) -> Option<&'static str> {
    if account.deployments.is_empty() {
        return Some("it has no deployments");
    }
    if !is_name(name) {
        return Some("its name can't be a backend's");
    }
    let host = endpoint.strip_prefix("https://").unwrap_or_default();
    let is_host = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
    // Without a subdomain it shares its region's endpoint, which takes no tokens.
    let is_own = !host.is_empty() && host.bytes().all(is_host) && !host.contains(".api.cognitive.");
    (!is_own).then_some("it has no endpoint of its own (a custom subdomain)")
}

fn read(deployment: &Deployment) -> Result<Sort, String> {
    let (model, sku) = (&deployment.properties.model, deployment.sku.as_ref());
    if !is_name(&deployment.name) || !is_name(&model.name) {
        return Err("its name can't stand in the configuration".into());
    }
    if model.format != "OpenAI" {
        return Err(format!("its model is of the format {:?}", model.format));
    }
    match deployment.properties.provisioning_state.as_deref() {
        None | Some("Succeeded") => {}
        Some(state) => return Err(format!("its state is {state:?}")),
    }
    let sku = sku.map_or("", |sku| &sku.name);
    sort(sku).ok_or_else(|| format!("the deployment type {sku:?} serves no calls like these"))
}

/// What a deployment type means (learn: "Deployment types", the column `sku-name`). Types for batches
/// alone take no calls.
fn sort(sku: &str) -> Option<Sort> {
    let (class, rest) = if let Some(rest) = sku.strip_prefix("Global") {
        (RegionClass::Global, rest)
    } else if let Some(rest) = sku.strip_prefix("DataZone") {
        (RegionClass::DataZone, rest)
    } else {
        (RegionClass::Regional, sku)
    };
    let kind = match rest {
        "Standard" => Kind::Payg,
        "ProvisionedManaged" => Kind::Ptu,
        _ => return None,
    };
    Some(Sort { kind, class })
}

fn deployment(text: &mut String, one: &Deployment, sort: &Sort, all: &[Account]) {
    let model = &one.properties.model;
    text.push_str("[[backend.deployment]]\n");
    pair(text, "name", &one.name);
    if one.name != model.name {
        pair(text, "model", &model.name);
    }
    pair(text, "kind", sort.kind.as_str());
    // Other versions are no part of a model's name in price lists.
    if is_day(&model.version) {
        pair(
            text,
            "base_model",
            &format!("{}-{}", model.name, model.version),
        );
    }
    pair(text, "region_class", sort.class.as_str());
    let capacity = capacity(one);
    if let Some(weight) = weight(one, sort.kind, all) {
        line(text, &format!("weight = {weight}"));
    }
    if sort.kind == Kind::Ptu {
        if let Some(ptus) = capacity {
            line(text, &format!("ptus = {ptus}"));
        }
        if let Some(day) = made_on(one) {
            pair(text, "since", day);
        }
        if let Some(other) = &one.properties.spillover_deployment_name {
            let note = "spills over by itself, which is billed as pay-as-you-go, to";
            comment(text, &format!("{} {note} {other}", one.name));
        }
    }
}

fn capacity(one: &Deployment) -> Option<u32> {
    let capacity = one.sku.as_ref()?.capacity?;
    (1..=1_000_000).contains(&capacity).then_some(capacity)
}

/// The deployment's share among those of its model and kind, by capacity, where they differ.
fn weight(one: &Deployment, kind: Kind, all: &[Account]) -> Option<u32> {
    let deployments = all.iter().flat_map(|account| &account.deployments);
    let same = deployments.filter(|other| {
        other.properties.model.name == one.properties.model.name
            && read(other).is_ok_and(|sort| sort.kind == kind)
    });
    let capacities: Vec<u32> = same.filter_map(capacity).collect();
    let (least, most) = (*capacities.iter().min()?, *capacities.iter().max()?);
    if least == most {
        return None;
    }
    let divisor = capacities.iter().fold(0, |a, b| gcd(a, *b));
    let own = capacity(one)? / divisor.max(1);
    let largest = most / divisor.max(1);
    if largest <= 1000 {
        return Some(own.max(1));
    }
    let scaled = u64::from(own) * 1000 / u64::from(largest);
    Some(u32::try_from(scaled).unwrap_or(1000).max(1))
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The UTC day that it was made on.
fn made_on(one: &Deployment) -> Option<&str> {
    let moment = one.system_data.as_ref()?.created_at.as_deref()?;
    moment.get(..10).filter(|day| is_day(day))
}

/// Whether it has the form `2026-11-15`.
fn is_day(text: &str) -> bool {
    let digits =
        |part: &str, length| part.len() == length && part.bytes().all(|b| b.is_ascii_digit());
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next(), parts.next(), parts.next());
    year.is_some_and(|y| digits(y, 4))
        && month.is_some_and(|m| digits(m, 2))
        && day.is_some_and(|d| digits(d, 2))
        && parts.next().is_none()
}

fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(plain)
}

/// A key and a text. JSON's escapes are TOML's too.
fn pair(text: &mut String, key: &str, value: &str) {
    let value = serde_json::Value::from(value).to_string();
    // `${` would be a reference.
    line(text, &format!("{key} = {}", value.replace("${", "$${")));
}

fn comment(text: &mut String, note: &str) {
    let plain: String = note
        .trim_end()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    line(text, &format!("# {plain}"));
    if note.ends_with('\n') {
        text.push('\n');
    }
}

fn line(text: &mut String, line: &str) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "{line}");
}
