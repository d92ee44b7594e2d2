//! Many resources of a region, which Azure Monitor is asked for at once.

use spillway::gateway::pacing::calibration::Calibration;
use spillway::store::utilization::Current;

use super::*;

/// The part of a batch's answer about a resource, with this code.
fn part(i: usize, code: &str) -> String {
    let id = resource_id(i).to_lowercase();
    let metrics = metrics(&[Some(5.0)]).replace("Success", code);
    metrics.replacen('{', &format!(r#"{{"resourceid":"{id}","#), 1)
}

fn batch(parts: &[String]) -> Act {
    let all = format!(r#"{{"values":[{}]}}"#, parts.join(","));
    answer("200 OK", "", &all)
}

fn written(outcomes: &[Outcome]) -> usize {
    let written = |outcome: &&Outcome| matches!(outcome, Outcome::Written { .. });
    outcomes.iter().filter(written).count()
}

#[tokio::test]
async fn many_resources_of_a_region_are_asked_for_together() {
    let parts: Vec<String> = (0..9).map(|i| part(i, "Success")).collect();
    let scene = Scene::start(10, vec![batch(&parts)]).await;
    let outcomes = scene.poll().await;
    assert_eq!(
        (written(&outcomes), outcomes.len(), scene.monitor.calls()),
        (9, 10, 1)
    );
    assert!(
        outcomes[9].to_string().contains("no part for it"),
        "{}",
        outcomes[9]
    );
    let request = scene.monitor.last_request();
    assert!(
        request.starts_with("POST /subscriptions/S/metrics:getBatch?"),
        "{request}"
    );
    assert!(request.contains(r#"{"resourceids":["#), "{request}");
    assert!(
        request.contains("starttime=2026-11-23T10:01:00Z&endtime=2026-11-23T10:11:20Z"),
        "{request}"
    );
}

#[tokio::test]
async fn what_is_wrong_with_one_resource_costs_no_other_its_minutes() {
    let code = |i| {
        if i == 3 {
            "InternalServerError"
        } else {
            "Success"
        }
    };
    let parts: Vec<String> = (0..10).map(|i| part(i, code(i))).collect();
    let scene = Scene::start(10, vec![batch(&parts)]).await;
    let outcomes = scene.poll().await;
    assert_eq!((written(&outcomes), scene.monitor.calls()), (9, 1));
    let why = outcomes[3].to_string();
    assert!(why.contains("InternalServerError"), "{why}");
}

/// The last minute that is known of one of them, and from when on all are asked for.
#[tokio::test]
async fn after_missed_runs_all_are_asked_for_what_one_of_them_misses() {
    for (newest, from) in [("09:50", "09:50"), ("08:00", "09:41")] {
        let parts: Vec<String> = (0..10).map(|i| part(i, "Success")).collect();
        let scene = Scene::start(10, vec![batch(&parts)]).await;
        let minute = Timestamp::parse(&format!("2026-11-23T{newest}:00Z")).unwrap();
        let current = Current {
            newest: MonitorMinute {
                minute: Minute::of(minute),
                average: Utilization::of_tenths(500),
                maximum: Utilization::of_tenths(500),
            },
            asked: minute,
            calibration: Calibration::default(),
            learnt: Minute::of(minute),
        };
        let writes = vec![utilization::current(&current)];
        let stored = utilization::write(&*scene.store, &id(9), writes).await;
        stored.unwrap();
        scene.poll().await;
        let request = scene.monitor.last_request();
        let asked = format!("starttime=2026-11-23T{from}:00Z");
        assert!(request.contains(&asked), "{newest}: {request}");
    }
}

/// The role on the subscription may be missing, one of them gone, or their form not understood there.
#[tokio::test]
async fn where_all_at_once_are_refused_each_is_asked_for_alone() {
    for refused in [
        answer("403 Forbidden", "", ""),
        answer("404 Not Found", "", ""),
        answer("400 Bad Request", "", ""),
        answer("200 OK", "", "<html>"),
    ] {
        let good = answer("200 OK", "", &metrics(&[Some(5.0)]));
        let scene = Scene::start(10, vec![refused.clone(), good]).await;
        let outcomes = scene.poll().await;
        assert_eq!(written(&outcomes), 10, "{refused:?}: {outcomes:?}");
        assert_eq!(scene.monitor.calls(), 11);
    }
}

#[tokio::test]
async fn a_monitor_that_is_down_or_throttles_is_asked_once() {
    for refused in [
        answer("429 Too Many Requests", "retry-after: 17\r\n", ""),
        answer("503 Service Unavailable", "", ""),
    ] {
        let scene = Scene::start(10, vec![refused]).await;
        let outcomes = scene.poll().await;
        assert_eq!((written(&outcomes), scene.monitor.calls()), (0, 1));
    }
}
