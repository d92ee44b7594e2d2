//! The simulated deployments that `spillway local` calls where the configuration names none.

use std::io;

use tokio::net::TcpListener;

use super::monitor::{self, Watched};
use super::simulation::{self, Latency, Limit, Metered, SimulatedBackend, SimulatedDeployment};

/// PTUs of the simulated PTU deployment: the least that gpt-4o is sold in.
const PTUS: u32 = 15;

/// Starts a PTU and a PAYG resource on loopback ports of their own, in the runtime that this is
/// called from. Returns the configuration that names them, with so many slots.
///
/// # Errors
/// When no port is free.
pub async fn start(latency: Latency, slots: u32) -> io::Result<String> {
    let ptu = Limit::Ptu { ptus: PTUS };
    let payg = Limit::Payg {
        tokens_per_minute: 450_000,
        requests_per_minute: 2700,
    };
    let mut ptu_models = vec![("gpt-4o", ptu)];
    ptu_models.push(("text-embedding-3-small", ptu));
    let mut payg_models = vec![("gpt-4o", payg), ("text-embedding-3-small", payg)];
    payg_models.extend(EXTRA_MODELS.map(|model| (model, payg)));
    let mut watched = Vec::new();
    let mut sections = String::new();
    for (name, region, models) in [
        ("simulated-ptu", "swedencentral", &ptu_models),
        ("simulated-payg", "westeurope", &payg_models),
    ] {
        let (section, metered) = resource(name, region, models, latency).await?;
        sections += &section;
        watched.push(Watched {
            resource_id: resource_id(name),
            metered,
        });
    }
    let monitor = monitor::start(watched, monitor::LATE_MIN).await?;
    Ok(format!(
        "[auth]\nmode = \"off\"\n[pacing]\nslots = {slots}\nmonitor = \"http://{monitor}\"\n{sections}"
    ))
}

/// Models for the operations that neither chat nor embeddings are.
const EXTRA_MODELS: [&str; 5] = [
    "gpt-35-turbo-instruct",
    "gpt-image-1",
    "gpt-4o-transcribe",
    "gpt-realtime",
    "tts",
];

async fn resource(
    name: &str,
    region: &str,
    models: &[(&str, Limit)],
    latency: Latency,
) -> io::Result<(String, Metered)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let deployments = models.iter().map(|(model, limit)| SimulatedDeployment {
        name: (*model).to_owned(),
        model: (*model).to_owned(),
        limit: *limit,
    });
    let (router, metered) = simulation::metered(SimulatedBackend {
        name: name.to_owned(),
        region: region.to_owned(),
        key: None,
        deployments: deployments.collect(),
        latency,
    });
    tokio::spawn(simulation::serve(listener, router));
    let section = section(name, region, &format!("http://{address}"), models);
    Ok((section, metered))
}

/// The id that the simulated Monitor knows a resource by.
fn resource_id(name: &str) -> String {
    format!(
        "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/local/providers/Microsoft.CognitiveServices/accounts/{name}"
    )
}

fn section(name: &str, region: &str, endpoint: &str, models: &[(&str, Limit)]) -> String {
    let mut text = format!(
        "\n[[backend]]\nname = \"{name}\"\nregion = \"{region}\"\nendpoint = \"{endpoint}\"\nresource_id = \"{}\"\n",
        resource_id(name)
    );
    for (model, limit) in models {
        let kind = match limit {
            Limit::Ptu { ptus } => format!("\"ptu\"\nptus = {ptus}"),
            Limit::Payg { .. } => "\"payg\"".to_owned(),
        };
        text += &format!("[[backend.deployment]]\nname = \"{model}\"\nkind = {kind}\n");
    }
    text
}
