package senses

// Standard returns the senses that every host has, with their defaults. On
// systems other than Linux there are none.
func Standard(cfg StandardConfig) ([]Sense, error) {
	host := HostConfig{Now: cfg.Now}
	copies := CopiesConfig{Now: cfg.Now, Copies: cfg.Copies}
	disks := DisksConfig{Now: cfg.Now}
	var list []Sense
	for _, build := range []func() (Sense, error){
		func() (Sense, error) {
			return NewPressure(PressureConfig{Now: cfg.Now, Logger: cfg.Logger})
		},
		func() (Sense, error) { return NewMemory(host) },
		func() (Sense, error) { return NewCPU(host) },
		func() (Sense, error) { return NewLoad(host) },
		func() (Sense, error) { return NewLimits(host) },
		func() (Sense, error) { return NewClocks(ClockConfig{Now: cfg.Now}) },
		func() (Sense, error) { return NewUsage(copies) },
		func() (Sense, error) { return NewCopyPressure(copies) },
		func() (Sense, error) { return NewOOM(OOMConfig{CopiesConfig: copies, Logger: cfg.Logger}) },
		func() (Sense, error) { return NewLinks(LinksConfig{Now: cfg.Now, Logger: cfg.Logger}) },
		func() (Sense, error) { return NewLinkErrors(LinkErrorsConfig{Now: cfg.Now}) },
		func() (Sense, error) { return NewUnits(UnitsConfig{Now: cfg.Now, Logger: cfg.Logger}) },
		func() (Sense, error) { return NewDisks(disks) },
		func() (Sense, error) { return NewDiskBusy(disks) },
	} {
		s, err := build()
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}
