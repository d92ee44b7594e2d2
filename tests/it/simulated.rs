//! Simulated Azure OpenAI resources, each with one deployment of `gpt-4o`.

use std::net::SocketAddr;

pub(crate) use spillway::local::simulation::Limit;
use spillway::local::simulation::{Latency, SimulatedBackend, SimulatedDeployment, router, serve};
use tokio::net::TcpListener;

/// A pay-as-you-go deployment that is never full in a test.
pub(crate) const ROOMY: Limit = Limit::Payg {
    tokens_per_minute: 100_000_000,
    requests_per_minute: 1_000_000,
};

/// Starts a resource.
pub(crate) async fn simulated(limit: Limit, first_token_ms: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let resource = SimulatedBackend {
        name: "simulated".into(),
        region: "swedencentral".into(),
        key: None,
        deployments: vec![SimulatedDeployment {
            name: "gpt-4o".into(),
            model: "gpt-4o".into(),
            limit,
        }],
        latency: Latency {
            first_token_ms,
            per_token_ms: 0,
        },
    };
    tokio::spawn(serve(listener, router(resource)));
    address
}
