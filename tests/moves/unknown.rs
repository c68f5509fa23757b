//! Moves of tenants that the gate does not know: there are more than it keeps.

use super::{ONE, Silo, Stage, place};
use crate::harness::unique;
use crate::harness::wire::Wire;

async fn order(console: &mut Wire, silo: &Silo, id: &str) -> String {
    console.query(&silo.order(id)).await
}

#[tokio::test]
async fn whoever_is_not_known_moves_and_is_held_against_those_who_are_not_either() {
    let stage = Stage::keeping("known = 2\n", "").await;
    let mark = unique();
    let mut all = Vec::new();
    for number in 0..6 {
        let id = format!("u{number}_{mark}");
        let token = stage.tables.add(&id).await;
        all.push((id, token));
    }
    // From here on others are known.
    for (_, token) in &all[3..] {
        assert_eq!(stage.let_in(token).await.query("SELECT 1").await, ONE);
    }
    let (silo, mut console) = (Silo::new().await, stage.console().await);
    assert_eq!(order(&mut console, &silo, &all[0].0).await, "C(MOVE) Z(I)");
    // Whoever moved is not known any more when the next one wants to go there.
    for (_, token) in &all[3..] {
        assert_eq!(stage.let_in(token).await.query("SELECT 1").await, ONE);
    }
    assert_eq!(order(&mut console, &silo, &all[1].0).await, "E(55000) Z(I)");
    assert_eq!(place(&mut stage.login(&all[1].1).await).await, "app");
    let mut moved = stage.login_to(&silo.name, &all[0].1).await;
    assert_eq!(place(&mut moved).await, silo.name);
    assert_eq!(order(&mut console, &silo, "nobody").await, "E(3D000) Z(I)");
}
