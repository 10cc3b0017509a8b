"""Suggest our names for misspelt names, for names of other libraries, and for ids without version."""

import difflib
import importlib.util
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_OPTIONS: dict[str, str] = {
    # our setting: its names in other libraries and papers, without hyphens and underscores
    "agent": "algo algorithm alg policy method algorithmname",
    "env": "environment envid envname gym gymid game task world",
    "seed": "randomseed rng rngseed",
    "num_envs": "nenvs nenv numenv envs numworkers nworkers workers numactors numenvrunners numenvironments parallelenvs "
    "numrolloutworkers trainingnum numtrainingenvs numenvsperworker numenvsperenvrunner",
    "env_kwargs": "envconfig envargs envparams envarguments environmentkwargs makekwargs envoptions kwargs",
    "wrapper": "envwrapper wrapperclass wrappers envwrappers",
    "workers": "njobs jobs nworkers numworkers numprocesses processes parallel maxconcurrent maxconcurrenttrials",
    "optimize": "ntrials trials numtrials optuna numsamples tune hpo optimise",
    "num_steps": "nsteps nstep steps rolloutlength rolloutsteps nrolloutsteps horizon unrolllength rolloutfragmentlength tmax "
    "stepspercollect steppercollect stepsperepoch",
    "n_steps": "numsteps nstep multistep nstepreturn nstepreturns tdsteps",
    "total_timesteps": "timesteps totalsteps ntimesteps numtimesteps numsteps steps nsteps maxsteps maxtimesteps trainsteps "
    "trainingsteps totaltimestep numenvsteps totalenvsteps frames numframes totalframes iterations budget generations "
    "ngenerations",
    "run_dir": "output out outdir outputdir logdir logpath logfolder tensorboardlog savedir savepath expdir resultsdir results "
    "dir rundirectory runs",
    "learning_rate": "lr alpha stepsize adamlr pilr vflr qlr actorlr criticlr policylr plr learningrateinit",
    "gradient_learning_rate": "lr",
    "learning_rate_final": "annealr anneallr lrdecay lrschedule finallr lrfinal lrend",
    "entropy_coefficient": "entcoef entropycoef entropycoeff entropyweight entropybonus entropyregularization entropy ent entcoeff "
    "entropybeta beta",
    "temperature": "entcoef entropycoef alpha entropycoefficient initalpha inittemperature initialtemperature",
    "learn_temperature": "autotune autoalpha automaticentropytuning autoentropy",
    "value_coefficient": "vfcoef valuecoef vfcoeff valuelosscoef vflosscoeff criticcoef valueweight",
    "clip_range": "clip clipcoef clipparam clipeps cliprange epsclip clipratio ppoclip clipepsilon epsilonclip",
    "clip_value": "cliprangevf clipvloss vfclipparam valueclip clipvf",
    "batch_size": "batch minibatch minibatchsize nminibatches numminibatches sgdminibatchsize trainbatchsize bs",
    "batch_envs": "batch minibatch minibatchsize nminibatches numminibatches batchsize",
    "buffer_size": "buffer replaysize replaybuffer replaybuffersize replaymemory memorysize memory capacity buffercapacity "
    "maxbuffersize replaycapacity buffersizes",
    "epochs": "nepochs numepochs updateepochs noptepochs ppoepochs numsgditer kepochs sgditer optimepochs repeatpercollect",
    "gamma": "discount discountfactor discountrate",
    "gradient_gamma": "gamma discount",
    "gae_lambda": "lam lambda lambd gae gaelam tdlambda",
    "gradient_lambda": "lam lambda gae gaelambda",
    "return_lambda": "lam lambda lambd qlambda tdlambda traceslambda",
    "layer_norm": "normtype layernorm ln uselayernorm",
    "target_kl": "kl klmax maxkl targetkldivergence klcoef klcoeff kltarget",
    "max_grad_norm": "maxnorm gradclip gradientclip clipgrad clipgradnorm gradnorm maxgradientnorm gradclipnorm gradientclipping",
    "normalize_advantages": "normadv normalizeadvantage advnorm advantagenormalization normalizeadv",
    "normalize_observations": "normobs obsnorm normalize vecnormalize normalizeobs normalizeobservation",
    "normalize_rewards": "normreward rewardnorm normalizereward rewardscaling normrew",
    "tau": "polyak soft softupdatetau polyaktau polyakfactor",
    "target_update_interval": "targetnetworkfrequency targetupdate targetupdatefreq targetupdatefrequency targetnetworkupdatefreq "
    "updatetarget targetnetworkupdatefrequency targetfrequency syncfrequency",
    "train_frequency": "trainfreq updateevery updatefrequency updatefreq updateinterval traininterval",
    "gradient_steps": "utd updatetodata utdratio replayratio updates nupdates gradientupdates numupdates updateperstep ngradientsteps",
    "learning_starts": "starttimesteps warmup warmupsteps learningstart randomsteps startsteps burnin initialsteps prefill",
    "exploration_initial": "starte explorationinitialeps epsstart epsilonstart initialepsilon epsilon eps epsilonmax maxepsilon",
    "exploration_final": "ende explorationfinaleps epsend epsilonend finalepsilon minepsilon epsilonmin",
    "exploration_fraction": "epsdecay epsilondecay explorationdecay epsilontimesteps",
    "exploration_noise": "explnoise actionnoise noise noisestd actionsigma",
    "target_noise": "policynoise targetpolicynoise",
    "noise_clip": "targetnoiseclip",
    "policy_delay": "policyfrequency policyfreq actorupdatefreq policyupdatefreq actordelay",
    "double": "doubledqn ddqn doubleq isdouble doubleqlearning",
    "dueling": "duelingdqn duelingnetwork isdueling duelingnet",
    "prioritized": "per prioritizedreplay prioritised prioritisedreplay prioritizedexperiencereplay",
    "priority_exponent": "prioritizedreplayalpha peralpha alpha",
    "importance_exponent": "prioritizedreplaybeta perbeta beta",
    "noisy": "noisynet noisynets noisydqn",
    "value_min": "vmin minvalue zmin supportmin",
    "value_max": "vmax maxvalue zmax supportmax",
    "sequence_length": "seqlen seqlength tracelength unrolllength sequencelen bptt",
    "burn_in": "burninlength burninsteps",
    "norm_momentum": "batchnormmomentum bnmomentum",
    "norm_warmup": "batchnormwarmup renormwarmupsteps warmup",
    "adam_beta1": "beta1 b1 betas adamb1",
    "critics": "ncritics numcritics ensemblesize numqs nets nnets",
    "dropped": "topquantilestodroppernet topquantilestodrop toppernet",
    "use_sde": "sde gsde usegsde",
    "sde_sample_freq": "sdesamplefrequency sdefreq",
    "quantiles": "nquantiles numquantiles numatoms natoms quantile",
    "network": "net netarch hidden hiddensizes hiddensize hiddendim hiddendims hiddenlayers layers arch architecture "
    "policykwargs model fcnethiddens units mlp hiddenunits",
    "memory": "lstmhiddensize hiddensize hiddenunits rnnhidden rnnhiddensize lstmsize lstm gru cellsize hiddendim",
    "activation": "activationfn act nonlinearity activationfunction fcnetactivation",
    "optimizer": "optim opt optimizerclass",
    "log_std": "logstdinit initlogstd logstdev",
    "population": "pop popsize populationsize npop numgenomes",
    "eval_episodes": "nevalepisodes numevalepisodes testepisodes evaluationepisodes nepisodes evalepisode episodes testnum "
    "evaluationduration episodepertest",
    "episodes": "nevalepisodes numevalepisodes testepisodes evalepisodes nepisodes neval evaluationepisodes",
    "eval_frequency": "evalfreq evalinterval evaluationinterval evalevery testevery testinterval evaluationfrequency stepperepoch",
    "checkpoint_frequency": "savefreq checkpointfreq savefrequency saveinterval checkpointinterval saveevery save saveperiod",
    "log_frequency": "loginterval logfreq logevery logfrequency summaryfreq",
    "keep_best": "savebest best bestmodel savebestmodel",
    "stop_return": "target rewardthreshold stopreward stopvalue targetreward solved targetreturn stoponreward",
    "resume": "load checkpoint loadcheckpoint restore continue ckpt trainedagent resumefrom continuefrom",
    "start_from": "pretrained initfrom warmstart loadmodel finetune frompretrained",
    "config": "configfile cfg yaml conf configpath hyperparams",
    "frame_stack": "framestack nstack numstack stack framestacks numframestack",
    "vectorization": "vecenvtype vecenv vectorenv vectorize subproc asyncenvs async vecenvclass",
    "time_aware": "timeawareobservation timefeature timelimitaware",
    "video": "capturevideo recordvideo savevideo rendermode film",
    "json": "format outputformat asjson",
}

_AGENTS: dict[str, str] = {
    "dqn": "rainbow ddqn doubledqn duelingdqn d3qn dddqn noisydqn per qlearning deepqlearning deepqnetwork q sarsa apex nfq",
    "qrdqn": "c51 iqn fqf distributional distributionaldqn quantile quantiledqn categoricaldqn",
    "drqn": "r2d2 recurrentdqn recurrentqnetwork lstmdqn rdqn",
    "pqn": "parallelqn parallelisedqnetwork parallelizedqnetwork qlambda",
    "ppo": "ppo1 ppo2 ppoclip ppopenalty trpo proximalpolicyoptimization maskableppo appo impala ppocontinuous ppoatari",
    "recurrent_ppo": "ppolstm lstm rppo ppornn ppogru recurrent lstmppo",
    "a2c": "a3c ac actorcritic advantageactorcritic acktr acer",
    "reinforce": "vpg policygradient pg montecarlo vanillapolicygradient",
    "sac": "softactorcritic sacdiscrete discretesac redq droq soft",
    "crossq": "crossqlearning",
    "tqc": "truncatedquantilecritics",
    "td3": "ddpg d4pg twindelayedddpg dpg ourddpg",
    "neat": "neatpython hyperneat neuroevolution ga geneticalgorithm evolution",
    "ars": "augmentedrandomsearch randomsearch brs",
    "es": "openaies evolutionstrategies evolutionstrategy nes",
    "bc": "behaviorcloning behaviourcloning imitation clone dagger gail",
    "iql": "implicitq implicitqlearning cql offline awac td3bc",
    "cmaes": "cma covariancematrixadaptation",
}

_ABSENT: dict[str, str] = {
    # end of a message: options of other libraries without a counterpart here, without hyphens and underscores
    ": rl_lab computes on the CPU, leave it out": "device cuda gpu gpus nocuda gpuid usecuda numgpus ngpus numgpusperlearner",
    ": rl_lab has an engine of its own, leave it out": "framework torch",
    ": it is an option of python -m rl_lab.sweep": "optimize ntrials trials set search executor workers njobs jobs retries",
    ": every run saves checkpoints in its directory, leave it out": "savemodel uploadmodel pushtohub hfentity",
    ": the environment variable NUMBA_NUM_THREADS sets it": "threads numthreads nthreads torchthreads numcpus ncpus",
    ": film a run once it is trained: python -m rl_lab.evaluate RUN --video": "rendermode capturevideo recordvideo video",
    ": every run writes TensorBoard files into its directory, leave it out": "tensorboard logger tb",
    ": --log wandb sends the log to wandb": "track wandb wandbprojectname wandbentity wandbproject usewandb",
    ": runs with the same seed are the same bit for bit, leave it out": "torchdeterministic deterministic cudnndeterministic",
    ": rl_lab prints a few lines for each run, leave it out": "verbose quiet loglevel silent progress progressbar",
    ": this agent has one optimiser, leave it out": "optimizer optim opt optimizerclass",
}

_ATARI = (
    "Adventure AirRaid Alien Amidar Assault Asterix Asteroids Atlantis BankHeist BattleZone BeamRider Berzerk Bowling Boxing Breakout "
    "Carnival Centipede ChopperCommand CrazyClimber Defender DemonAttack DoubleDunk ElevatorAction Enduro FishingDerby Freeway "
    "Frostbite Gopher Gravitar Hero IceHockey Jamesbond JourneyEscape Kangaroo Krull KungFuMaster MontezumaRevenge MsPacman "
    "NameThisGame Phoenix Pitfall Pong Pooyan PrivateEye Qbert Riverraid RoadRunner Robotank Seaquest Skiing Solaris SpaceInvaders "
    "StarGunner Surround Tennis TimePilot Tutankham UpNDown Venture VideoPinball WizardOfWor YarsRevenge Zaxxon"
)


class Package(NamedTuple):
    """A package of environments: a pattern of their ids, the name for pip, and the module that registers them."""

    pattern: str
    name: str
    module: str
    games: str = ""
    """Names in ids of the form ``ALE/Name-v5``, which may be typed without namespace and version."""

    def is_installed(self) -> bool:
        """Whether the package can be found, without importing it."""
        return importlib.util.find_spec(self.module.partition(".")[0]) is not None


PACKAGES = (
    Package(r"ALE/|.*(NoFrameskip|Deterministic)-v\d|[A-Z]\w*-ram(-|NoF|Det)", "ale-py", "ale_py"),
    Package(rf"(?i:({'|'.join(_ATARI.split())}))(-v\d+)?$", "ale-py", "ale_py", _ATARI),
    Package(r"(?i:MinAtar)/", "minatar", "minatar.gym"),
    Package(r"(MiniGrid|BabyAI)-", "minigrid", "minigrid"),
    Package(
        r"(highway|merge|roundabout|parking|intersection|racetrack|exit|two-way|u-turn|lane-keeping)(-[a-z]+)*-v\d",
        "highway-env",
        "highway_env",
    ),
    Package(
        r"(Fetch|Ant_?Maze|Point_?Maze|AdroitHand|HandReach|HandManipulate|FrankaKitchen)",
        "gymnasium-robotics",
        "gymnasium_robotics",
    ),
    Package(r"(mo-|MO-)", "mo-gymnasium", "mo_gymnasium"),
    Package(r"dm_control/", "shimmy[dm-control]", "shimmy"),
    Package(r"FlappyBird", "flappy-bird-gymnasium", "flappy_bird_gymnasium"),
    Package(r"PyFlyt/", "pyflyt", "PyFlyt.gym_envs"),
    Package(r"Panda(Reach|Push|Slide|Pick|Stack|Flip)", "panda-gym", "panda_gym"),
    Package(r"(Meta-World|metaworld)/", "metaworld", "metaworld"),
    Package(r"procgen", "procgen", "procgen"),
    Package(r"gym_pusht/", "gym-pusht", "gym_pusht"),
    Package(r"gym_aloha/", "gym-aloha", "gym_aloha"),
    Package(r"gym_xarm/", "gym-xarm", "gym_xarm"),
    Package(r"Craft(er|ax)", "crafter", "crafter"),
    Package(r"MiniWorld-", "miniworld", "miniworld"),
    Package(r"SuperMarioBros", "gym-super-mario-bros", "gym_super_mario_bros"),
)
"""Known packages of environments. A package is imported when an id matches its pattern."""


def package_of(env_id: str) -> Package | None:
    """Return the known package of an environment, or None."""
    return next((package for package in PACKAGES if re.match(package.pattern, env_id)), None)


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" if a choice resembles the word, else a list of the choices if they are few, else an empty text."""
    listed = sorted(choices)
    close = _resembling(word, listed)
    return f", did you mean {close!r}?" if close else _all_of(listed)


def nearest_option(word: str, options: Iterable[str]) -> str:
    """As `nearest`, for options such as ``--lr`` or settings such as ``lr``. Names of other libraries are tried first."""
    return _nearest_known(word, sorted(options), _OPTIONS)


def nearest_agent(word: str, agents: Iterable[str]) -> str:
    """As `nearest`, for names of agents: ``rainbow`` is a dqn, ``ddpg`` is near td3."""
    return _nearest_known(word, sorted(agents), _AGENTS)


def nearest_environment(env_id: str, registered: Iterable[str]) -> str:
    """Return the end of a message on an unknown id: the nearest registered id, or the package to install; empty if neither is known.

    For an old version the current id is suggested. For ``module:id`` the suggestion begins with ``module:`` as well.
    """
    module, _, name = env_id.rpartition(":")
    front = f"{module}:" if module else ""
    ids = list(registered)
    same = _best_version(name, ids)
    if same:
        return f", did you mean {front + same!r}?"
    package = None if module else package_of(name)
    if package is not None and not package.is_installed():
        stem = _plain(_stem(name))
        current = next((f"ALE/{game}-v5" for game in package.games.split() if _plain(game) == stem), name)
        return f": it comes with the package {package.name}: pip install {package.name}, then --env {current}"
    stem = _resembling(_stem(name), map(_stem, ids))
    close = _best_version(stem + name[len(re.sub(r"-v\d+$", "", name)) :], ids) if stem else ""
    return f", did you mean {front + close!r}?" if close else ""


def _best_version(name: str, ids: Iterable[str]) -> str:
    """Return the id that differs from ``name`` only in namespace or capitals, else its newest version; empty if there is none."""
    same = [known for known in ids if _plain(_stem(known)) == _plain(_stem(name))]
    return max(same, key=lambda known: (_version(known)[0] == _version(name)[0], *_version(known)), default="")


def _stem(env_id: str) -> str:
    """Strip namespace and version from an id."""
    return re.sub(r"-v\d+$", "", env_id.rpartition("/")[2])


def _version(env_id: str) -> tuple[int, bool]:
    """Version of an id, -1 without one, and whether the id has no namespace: greater is better."""
    found = re.search(r"-v(\d+)$", env_id)
    return int(found[1]) if found else -1, "/" not in env_id


def _nearest_known(word: str, listed: list[str], others: Mapping[str, str]) -> str:
    """As `nearest`, with the names ``others`` of other libraries."""
    plain = _plain(word)
    for name in listed:
        if _plain(name) == plain:
            return f", did you mean {name!r}?"
    ours = [name for name in listed if plain in others.get(name.lstrip("-").replace("-", "_"), "").split()]
    if ours:
        return ", did you mean " + " or ".join(map(repr, ours)) + "?"
    if others is _OPTIONS:
        for message, words in _ABSENT.items():
            if plain in words.split():
                return message
    close = _resembling(word, listed)
    return f", did you mean {close!r}?" if close else _all_of(listed)


def _resembling(word: str, choices: Iterable[str]) -> str:
    """Return the choice that resembles ``word`` most, or an empty text.

    Spelling decides first. If no choice is spelt closely, one that contains all parts of ``word`` is next, and then one that begins
    with the same letter and has most of its letters in common.
    """
    plain = {_plain(choice): choice for choice in choices}
    asked = _plain(word)
    if not asked:
        return ""
    close = difflib.get_close_matches(asked, plain, n=1, cutoff=0.7)
    if close:
        return plain[close[0]]
    parts = [part for part in re.split(r"[-_/ ]", word.lower()) if part]
    holding = [key for key, choice in plain.items() if all(part in choice.lower() for part in parts)]
    if holding and len(asked) > 2:
        return plain[min(holding, key=len)]
    close = difflib.get_close_matches(asked, [key for key in plain if key[:1] == asked[:1]], n=1, cutoff=0.65)
    return plain[close[0]] if close else ""


def _plain(word: str) -> str:
    """Lower-case letters and digits of a word."""
    return re.sub(r"[^a-z0-9]", "", word.lower())


def _all_of(listed: list[str]) -> str:
    return f": choose from {', '.join(listed)}" if 0 < len(listed) <= 12 else ""
