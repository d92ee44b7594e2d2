use super::*;

const NOW: Timestamp = Timestamp::from_unix_ms(1_795_453_590_000);

#[test]
fn the_months_end_with_this_one() {
    let all = months(NOW);
    assert_eq!((&*all[0], &*all[5]), ("2026-11", "2026-06"));
}

#[test]
fn a_part_of_nothing_is_none() {
    assert_eq!(part(Decimal::ONE, Decimal::from(3)), Some(33.3));
    assert_eq!(part(Decimal::ONE, Decimal::ZERO), None);
    assert_eq!(part(Decimal::MAX, Decimal::ONE), None);
}

#[test]
fn budgets_go_by_pay_as_you_go_as_calls_are_refused() {
    let text = "[auth]\nmode = \"off\"\n\
        [[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:9\"\n\
        [[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"payg\"\n\
        [[app]]\nname = \"portal\"\nbudget_per_month = \"100\"\n\
        [[app]]\nname = \"closed\"\nbudget_per_month = \"0\"\n";
    let config = Config::parse(text, "test", &|_| None);
    let accounts = Accounts::new(&config.unwrap_or_else(|e| panic!("{e}")));
    let percent = |app: &str, payg: &str| {
        let spent = Spent {
            payg_cost: payg.parse().unwrap(),
            ptu_cost: Decimal::from(500),
            ..Spent::default()
        };
        let cost = spent.cost().unwrap();
        let app = app_money(&accounts, &app.into(), &spent, cost, cost, 0);
        app.unwrap().budget_percent
    };
    assert_eq!(percent("portal", "40.5"), Some(40.5));
    assert_eq!(
        percent("portal", "0"),
        Some(0.0),
        "a share of PTUs is no part of it"
    );
    assert_eq!(
        percent("portal", "99.99"),
        Some(99.9),
        "it is not refused yet"
    );
    assert_eq!(percent("portal", "250"), Some(250.0));
    assert_eq!(percent("closed", "0"), Some(100.0));
    assert_eq!(percent("other", "1"), None);
}

#[test]
fn a_month_is_named_in_one_way() {
    let wish = |month: &str| {
        Wish {
            month: month.into(),
        }
        .month(NOW)
    };
    assert_eq!(wish("").unwrap().to_string(), "2026-11");
    assert_eq!(wish("2026-02").unwrap().to_string(), "2026-02");
    for wrong in ["2026-13", "2026", "2026-2", "x"] {
        assert!(
            matches!(wish(wrong), Err(BillingError::Asked(_))),
            "{wrong}"
        );
    }
}
