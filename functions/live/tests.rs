use std::sync::Mutex;

use super::*;

const GOOD: &str = "[auth]\nmode = \"off\"\n[live]\n[gateway]\nworkers = 2\n[[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:9\"\nkey = \"${KEY}\"\n[[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"payg\"\n";

fn env() -> Box<Env> {
    Box::new(|name| (name == "KEY").then(|| "canary".to_owned()))
}

/// A watcher of a file that begins with this text, and what it has applied.
struct Scene {
    folder: tempfile::TempDir,
    watcher: Watcher,
    applied: Mutex<Vec<Config>>,
}

impl Scene {
    fn start(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("spillway.toml");
        std::fs::write(&file, text).unwrap();
        let packaged = Written {
            text: text.to_owned(),
            from: file.display().to_string(),
        };
        Self {
            watcher: Watcher::new(Source::File(file), 1, packaged, None, env()),
            folder,
            applied: Mutex::default(),
        }
    }

    async fn write(&mut self, text: &str) -> standing::State {
        std::fs::write(self.folder.path().join("spillway.toml"), text).unwrap();
        self.look().await
    }

    async fn look(&mut self) -> standing::State {
        let applied = &self.applied;
        let apply = |config: &Config| {
            applied.lock().unwrap().push(config.clone());
            Ok(())
        };
        self.watcher.look(apply).await;
        self.watcher.standing().now()
    }

    fn applied(&self) -> usize {
        self.applied.lock().unwrap().len()
    }
}

#[tokio::test]
async fn a_good_one_is_taken_once() {
    let mut scene = Scene::start(GOOD);
    let before = scene.look().await;
    assert_eq!((before.running.hash, scene.applied()), (hash(GOOD), 0));
    let next = GOOD.replacen("name = \"gpt-4o\"", "name = \"gpt-4o\"\nweight = 3", 1);
    for _ in 0..2 {
        let now = scene.write(&next).await;
        assert_eq!((now.running.hash, now.refused), (hash(&next), None));
        assert_eq!(scene.applied(), 1);
    }
    let applied = scene.applied.lock().unwrap();
    assert_eq!(applied[0].backends[0].deployments[0].weight, 3);
}

#[tokio::test]
async fn a_wrong_one_is_refused_with_all_that_is_wrong_until_a_good_one_comes() {
    let mut scene = Scene::start(GOOD);
    let wrong = GOOD.replacen("workers = 2", "workers = 3\nmax_conections = 7", 1);
    let wrong = wrong.replacen("kind = \"payg\"", "kind = \"paid\"", 1);
    let now = scene.write(&wrong).await;
    assert_eq!((now.running.hash, scene.applied()), (hash(GOOD), 0));
    let refused = now.refused.unwrap();
    assert_eq!(refused.hash, hash(&wrong));
    let text = refused.mistakes.join("\n");
    for said in [
        "max_conections",
        "kind",
        "~ gateway.workers = 2 -> 3: it needs a restart",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains("canary"), "{text}");
    let still = scene.look().await;
    assert!(still.refused.is_some(), "it is said as long as it is there");
    let again = scene.write(GOOD).await;
    assert_eq!((again.refused, scene.applied()), (None, 0));
}

#[tokio::test]
async fn one_that_is_gone_or_broken_changes_nothing() {
    let mut scene = Scene::start(GOOD);
    std::fs::remove_file(scene.folder.path().join("spillway.toml")).unwrap();
    let gone = scene.look().await;
    assert_eq!(gone.running.hash, hash(GOOD));
    assert!(gone.missed.unwrap().why.ends_with("is not there"));
    let broken = scene.write("[gateway").await;
    assert_eq!(broken.missed, None);
    assert!(broken.refused.unwrap().mistakes[0].contains("not valid TOML"));
    assert_eq!(scene.applied(), 0);
}

#[tokio::test]
async fn one_that_can_t_be_gone_by_is_refused() {
    let mut scene = Scene::start(GOOD);
    let next = format!("# another\n{GOOD}");
    std::fs::write(scene.folder.path().join("spillway.toml"), &next).unwrap();
    scene.watcher.look(|_| Err("no roots".to_owned())).await;
    let now = scene.watcher.standing().now();
    assert_eq!(now.running.hash, hash(GOOD));
    assert_eq!(now.refused.unwrap().mistakes, ["no roots"]);
}

#[tokio::test]
async fn at_the_start_all_may_differ_but_where_things_are() {
    let mut scene = Scene::start(GOOD);
    let file = scene.folder.path().join("spillway.toml");
    let cases = [
        (GOOD.replacen("workers = 2", "workers = 4", 1), None),
        (
            GOOD.replacen("[live]", "[live]\npoll_seconds = 7", 1),
            Some("+ live.poll_seconds = 7: only the packaged file says so"),
        ),
        (
            format!("{GOOD}[storage]\ntables = \"embedded:x\"\n"),
            Some("+ storage.tables"),
        ),
        (
            GOOD.replacen("mode = \"off\"", "mode = \"on\"", 1),
            Some("auth.mode"),
        ),
    ];
    for (text, refusal) in cases {
        std::fs::write(&file, &text).unwrap();
        let packaged = Written {
            text: GOOD.to_owned(),
            from: "the package".to_owned(),
        };
        let source = Source::File(file.clone());
        scene.watcher = Watcher::new(source, 1, packaged, None, env());
        let begun = scene.watcher.begin(|_| Ok(())).await;
        let standing = scene.watcher.standing().now();
        assert_eq!(begun.is_some(), refusal.is_none(), "{standing:?}");
        if let Some(refusal) = refusal {
            assert_eq!(standing.running.from, "the package");
            let text = standing.refused.unwrap().mistakes.join("\n");
            assert!(text.contains(refusal), "{text}");
        }
    }
    std::fs::write(&file, GOOD).unwrap();
    let forbids = |_: &Config| Err("not here".to_owned());
    let packaged = Written {
        text: String::new(),
        from: "the package".to_owned(),
    };
    let mut watcher = Watcher::new(Source::File(file), 1, packaged, None, env());
    assert!(watcher.begin(forbids).await.is_none());
}
