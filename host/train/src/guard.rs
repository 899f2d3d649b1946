//! The guard against NaN and infinity: what is not finite stops training before it spoils the parameters.

use crate::bulk;
use crate::error::TrainError;
use crate::params::Parameters;

/// Keeps the parameters of the last step whose loss was finite.
pub struct Guard {
    good: Vec<Vec<f32>>,
    step: u64,
    epoch: usize,
}

impl Guard {
    /// A guard over these parameters, which count as good until a step says otherwise.
    pub fn new(params: &Parameters) -> Self {
        Guard { good: params.snapshot(), step: 0, epoch: 0 }
    }

    /// Names the step (from 1) that the next checks belong to.
    pub fn at(&mut self, step: u64, epoch: usize) {
        (self.step, self.epoch) = (step, epoch);
    }

    /// Checks the loss that `params` gave. If it is finite, they are the last good ones from now on; if not, the
    /// ones before are put back, since the last update is what broke the loss.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`], naming the step.
    pub fn loss(&mut self, loss: f64, params: &mut Parameters) -> Result<(), TrainError> {
        if loss.is_finite() {
            params.save_to(&mut self.good);
            return Ok(());
        }
        params.restore_from(&self.good);
        Err(self.error("the loss".into(), loss))
    }

    /// Checks the gradient by its norm; the parameters gave a finite loss and stay.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`], naming the step and the first parameter whose gradient is not finite.
    pub fn gradient(&self, norm: f64, grads: &[Vec<f32>], params: &Parameters) -> Result<(), TrainError> {
        if norm.is_finite() {
            return Ok(());
        }
        let bad = params.iter().zip(grads).find(|(_, g)| g.iter().any(|v| !v.is_finite()));
        let what =
            bad.map_or("the norm of the gradient".into(), |(p, _)| format!("the gradient of `{}`", p.name));
        Err(self.error(what, norm))
    }

    /// Checks the parameters after the update; if one overflowed, those before are put back.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`], naming the step and the parameter.
    pub fn update(&self, params: &mut Parameters) -> Result<(), TrainError> {
        let buffers: Vec<&[f32]> = params.iter().map(|p| p.values.as_slice()).collect();
        if bulk::map(&buffers, bulk::finite).into_iter().all(|all| all) {
            return Ok(());
        }
        let bad = params
            .iter()
            .find_map(|p| p.values.iter().find(|v| !v.is_finite()).map(|v| (p.name.clone(), *v)));
        let Some((name, value)) = bad else { return Ok(()) };
        params.restore_from(&self.good);
        Err(self.error(format!("the parameter `{name}`"), f64::from(value)))
    }

    fn error(&self, what: String, value: f64) -> TrainError {
        TrainError::NotFinite { step: self.step, epoch: self.epoch, what, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Parameter;

    fn params(v: f32) -> Parameters {
        Parameters::new(vec![Parameter::new("w", [1], vec![v]).unwrap()]).unwrap()
    }

    #[test]
    fn a_bad_loss_puts_back_what_gave_the_last_finite_one() {
        let mut p = params(1.0);
        let mut g = Guard::new(&p);
        g.at(1, 1);
        g.loss(0.5, &mut p).unwrap();
        p.get_mut("w").unwrap().values[0] = 1e30;
        g.at(2, 1);
        let e = g.loss(f64::NAN, &mut p).unwrap_err();
        assert!(e.to_string().contains("the loss is NaN at step 2 (epoch 1)"), "{e}");
        assert_eq!(p.get("w").unwrap().values, [1.0]);
    }

    #[test]
    fn a_bad_gradient_names_its_parameter_and_leaves_the_rest() {
        let p = params(1.0);
        let g = Guard::new(&p);
        let e = g.gradient(f64::INFINITY, &[vec![f32::INFINITY]], &p).unwrap_err();
        assert!(e.to_string().starts_with("the gradient of `w` is inf"), "{e}");
        g.gradient(3.0, &[vec![3.0]], &p).unwrap();
    }

    #[test]
    fn an_update_that_overflows_is_undone() {
        let mut p = params(1.0);
        let g = Guard::new(&p);
        p.get_mut("w").unwrap().values[0] = f32::INFINITY;
        assert!(g.update(&mut p).unwrap_err().to_string().contains("the parameter `w` is inf"));
        assert_eq!(p.get("w").unwrap().values, [1.0]);
    }
}
