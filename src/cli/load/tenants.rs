//! Who the load comes from: tenants with their credentials, how much each of them sends, and who
//! gets how many of the connections.

use crate::catalog::TenantId;
use crate::secret::Secret;

/// A tenant of the run.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub id: TenantId,
    /// Its token; without one all tenants share the connections of one login.
    pub token: Option<Secret>,
    /// How much of the load is its own, against the others' weights.
    pub weight: f64,
}

/// Reads lines of `tenant token`; blank lines and lines that start with `#` do not count.
///
/// # Errors
///
/// What is wrong, with the number of the line and never with a token.
pub fn read(text: &str) -> Result<Vec<(TenantId, Secret)>, String> {
    let mut found: Vec<(TenantId, Secret)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fault = |what: &str| format!("line {}: {what}", at + 1);
        let (id, token) = line
            .split_once([' ', '\t'])
            .ok_or_else(|| fault("write a tenant's id, a blank, and its token"))?;
        let id = TenantId::new(id).ok_or_else(|| fault("the first word is not a tenant id"))?;
        if found.iter().any(|(known, _)| *known == id) {
            return Err(fault(&format!("tenant {id} is named a second time")));
        }
        found.push((id, Secret::new(token.trim())));
    }
    if found.is_empty() {
        return Err("line 1: there is no tenant in the file".to_owned());
    }
    Ok(found)
}

/// `count` ids of a pattern: its run of `#` becomes a number from 1 on, with zeros in front to the
/// length of the run.
///
/// # Errors
///
/// The pattern has no `#`, or does not make tenant ids.
pub fn ids(pattern: &str, count: usize) -> Result<Vec<TenantId>, String> {
    let Some((head, rest)) = pattern.split_once('#') else {
        return Err(format!("\"{pattern}\" has no #, which stands for the tenant's number"));
    };
    let tail = rest.trim_start_matches('#');
    let width = rest.len() - tail.len() + 1;
    let id = |number| format!("{head}{number:0width$}{tail}");
    let made = (1..=count).map(|number| {
        TenantId::new(&id(number)).ok_or_else(|| format!("\"{}\" is not a tenant id", id(number)))
    });
    made.collect()
}

/// Weights of `count` tenants by Zipf's law: the tenant at place n gets 1/n to this power. With 0
/// all are alike.
pub fn zipf(count: usize, exponent: f64) -> Vec<f64> {
    (1..=count).map(|place| (place as f64).powf(-exponent)).collect()
}

/// A choice among tenants by weight.
#[derive(Clone, Debug)]
pub struct Choice(Vec<f64>);

impl Choice {
    /// Of weights that are not negative and not all zero.
    pub fn new(weights: &[f64]) -> Self {
        let mut sum = 0.0;
        let upto = weights.iter().map(|weight| {
            sum += weight;
            sum
        });
        Self(upto.collect())
    }

    /// The sum of all weights.
    pub fn sum(&self) -> f64 {
        self.0.last().copied().unwrap_or(0.0)
    }

    /// One of them.
    pub fn pick(&self, random: &mut fastrand::Rng) -> usize {
        let at = random.f64() * self.sum();
        let found = self.0.partition_point(|upto| *upto <= at);
        found.min(self.0.len().saturating_sub(1))
    }
}

/// `clients` connections over tenants: each gets one, the rest goes by weight. None if there are
/// fewer connections than tenants.
pub fn shares(weights: &[f64], clients: usize) -> Option<Vec<usize>> {
    let rest = clients.checked_sub(weights.len())?;
    let sum: f64 = weights.iter().sum();
    let mut shares = Vec::new();
    let (mut upto, mut given) = (0.0, 0);
    for weight in weights {
        upto += weight;
        // Rounding the running sum gives everything out, and nobody more than one too much.
        let due = (upto / sum * rest as f64).round() as usize;
        shares.push(1 + due.saturating_sub(given));
        given = due.max(given);
    }
    Some(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_tokens_is_read_and_its_faults_have_a_line_and_no_token() {
        let read_ids = |text| read(text).map(|all| all.len());
        assert_eq!(read_ids("# mine\n\nacme tg_1_x\nglobex\ttg_2_y\n"), Ok(2));
        for text in ["acme", "a/b hunter2", "acme hunter2\nacme hunter2", "# none"] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with("line ") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_pattern_counts_from_one_with_zeros_in_front() {
        let made = ids("t-##.x", 12).unwrap();
        assert_eq!((made[0].as_str(), made[11].as_str()), ("t-01.x", "t-12.x"));
        assert!(ids("t", 1).is_err() && ids("#/", 1).is_err());
    }

    #[test]
    fn the_choice_follows_the_weights() {
        let choice = Choice::new(&zipf(3, 1.0));
        let mut random = fastrand::Rng::with_seed(5);
        let mut counts = [0_u32; 3];
        (0..60_000).for_each(|_| counts[choice.pick(&mut random)] += 1);
        // 6/11, 3/11, 2/11 of 60,000.
        for (count, due) in counts.into_iter().zip([32_727_u32, 16_364, 10_909]) {
            assert!(count.abs_diff(due) < 1000, "{counts:?}");
        }
    }

    #[test]
    fn everybody_gets_a_connection_and_all_are_given_out() {
        assert_eq!(shares(&[1.0, 1.0], 1), None);
        for clients in [100, 117, 5000] {
            let shares = shares(&zipf(100, 1.2), clients).unwrap();
            assert_eq!(shares.iter().sum::<usize>(), clients);
            assert!(shares.iter().all(|share| *share >= 1) && shares[0] >= shares[99]);
        }
    }
}
