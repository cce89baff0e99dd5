"""Non-lenses that fool finders, by what they are; `sim.impostors` lists them all."""
