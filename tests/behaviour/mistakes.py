"""Command lines that must be refused: in one line, naming the setting, with nothing left behind."""

from __future__ import annotations

OF_TRAINING = r"""
foo=3
+foo=3
++foo.bar=3
~foo
train.stepz=3
+train.stepz=3
stepz=3
train.zzzz=3
mdoel=gpt
model.n_layr=3
+model.n_layr=3
model=bigram model.n_layer=3
model=gru model.norm=rms_norm
experiment=seed_mlp model.n_hiden=3
schedule=step schedule.en=3
train.steps.x=3
model@other=gpt
+seed=3
+model=gpt
~seed
~model
~train
model.vocab_size=9
+model.vocab_size=9
model=nope
model=gtp
model=gpt.yaml
model=../data/text
tokenizer=chr
data=shakespeare
optimizer=adamv
schedule=cosin
observe=ful
experiment=nope
logger=[nope]
~logger.local
logger=[local,wnadb]
logger=wandb logger.wandb.mode=of
train=3
model=[gpt,bigram]
model=gpt,bigram
seed=range(3)
train.steps=0
train.steps=1e3
train.steps=abc
train.steps=true
train.steps=[1]
train.steps=???
train.steps=5 train.tokens=5
train.batch_size=null
train.batch_size=0
train.accumulate=0
train.clip=0
train.ema=1.0
train.max_norm=0
train.patience=0
train.label_smoothing=-0.1
train.positions=lats
train.batch_norm=movin
train.batch_norm=precise
train.batch_norm_frozen=0
train.batch_norm_samples=1
train.on_non_finite=skipp
train.flops=1000 model=bigram
model=bigram train.max_norm=1
observe.every=0
eval.every=0
eval.batch_size=0
eval.sample_tokens=-1
checkpoint.every=0
init=kaimin
data=python_docs train.seq_len=100000000000
seed=-1
seed=99999999999999999999
optimizer.lr=nan
optimizer.lr=inf
optimizer.lr=abc
optimizer.lr=-1
~optimizer.lr
optimizer.decay_embeddings=3
optimizer.betas=[0.9]
optimizer.betas=[0.9,nan]
optimizer.betas=[0.9,1.5]
optimizer.lr_of={nope:1}
optimizer.lr_of={token_embeding:1}
schedule.warmup=abc
schedule.warmup=3000
schedule=inverse_sqrt schedule.warmup=0
schedule=step schedule.at=[3000]
model.n_head=3
model.n_embd=100000000000000
model.block_size=8
model=megabyte train.seq_len=63
model.activation=gelo
model.norm=layernorm
model=mlp model.norm=batch_norm
model=mlp model.activation=tanj
model=hf model.config.model_type=gpt3
eval.stride=65
compile=yes
resume=maybe
run_dir=5
device=gpu
device=cuda:x
device=cuda:9
precision=fp8
data.split=[0.8,0.1]
data.split=[0.8,0.1,0.2]
data.split=8
train.patience=2 data.split=[1,0,0]
data=text
data=text data.path=/nowhere
data=text data.path=.
data=text data.path=../text.txt eval.prompt="Q"
data=text data.path=../text.txt train.seq_len=200000
data=tiny_shakespeare data.url=http://127.0.0.1:9/x assets=[] cache=../empty
tokenizer=tiktoken
tokenizer=tiktoken tokenizer.encoding=p50k_bas data=text data.path=../text.txt
tokenizer=bpe tokenizer.vocab_size=3 data=text data.path=../text.txt
tokenizer=sentencepiece tokenizer.model_type=wrod
names.model=../../out
names=3
model.n_embd=${nope}
seed=${seed}
'a b'
=3
eval.prompt=é
'train.steps="5'
--nope
--mutlirun
model=gpt -m seed=0,1
-m --cfg job
--resolve
--config-dir nope
--config-name nope
--experimental-rerun x
run_dir=/
run_dir=/dev/null/x
resume=true
resume=true run_dir=nope
hydra.run.dir=x
hydra.verbose=3
-m model=gpt,nope
-m model=gpt,bigram train.stepz=3
-m seed=0,1 train.steps=0
-m seed=0,1 data=text data.path=/nowhere
-m seed=
-m seed=0,1 run_dir=x
-m seed=0,1 resume=true
-m seed=0,1 hydra.sweep.dir=/
-m seed=0,1 hydra.sweep.subdir=x
experiment=compare seed=-1
model._target_=os.system
model._target_=builtins.eval
model._target_=torch.nn.Linear
model._target_=a_foreign_package.Mine
model._target_=null
model._target_=zoo.gpt.Gpt
model._target_=zoo.gpt.nn
model._target_=zoo.nope.GPT
model._target_=zoo.language_model.LanguageModel
tokenizer._target_=zoo_tokenizers.Tokenizer
optimizer._target_=torch.optim.lr_scheduler.LambdaLR
optimizer._target_=torch.optim.Optimizer
optimizer._target_=torch.optim.LBFGS
data._target_=zoo.gpt.GPT
schedule._target_=zoo.gpt.GPT
logger.local._target_=zoo.gpt.GPT
+model.inner={_target_:a_foreign_package.Mine}
++model.dropout._target_=a_foreign_package.Mine
+hydra.callbacks.more._target_=a_foreign_package.Mine
hydra.launcher._target_=a_foreign_package.Mine
hydra.sweeper._target_=a_foreign_package.Mine
+hydra.job.env_set.LD_PRELOAD=x
eval.prompt=${oc.env:A_TOKEN}
eval.prompt=hush-4f9a1c77e2
run_dir=/somewhere/hush-4f9a1c77e2/run
+logger.local.api_key=1234
++data.hub.access_token=1234
data.url=https://someone:guess@example.org/x
'data.url="https://example.org/x?token=1234&b=2"'
-m eval.prompt=hush-4f9a1c77e2,b
""".strip().splitlines()

OF_TOOLS = """
compare
compare nope
bench train.stepz=3
bench model=nope
bench --lits
overfit train.stepz=3
overfit train.steps=null train.tokens=5
overfit model=nope
lr_range train.steps=19
lr_range optimizer.lr=0.0
lr_range model.n_head=3
prepare tokenizer=chr
prepare -m seed=0,1
prepare data=text data.path=/nowhere
schedule schedule=cosin
schedule schedule.warmup=3000
sample
sample nope
evaluate .
evaluate /dev/null
inside nope
inside nope --out x.gif
dashboard --jsno
live --port 99999
live --prot 1
live nope
drill --kills 0
drill run_dir=x
drill train.seconds=3
""".strip().splitlines()

# In a folder that holds a small GPT's run.
OF_RUNS = """
sample run --sede 3
sample run --temp 1
sample run --tokens x
sample run --tokens 0
sample run --num-samples 0
sample run --seed -1
sample run --seed 99999999999999999999
sample run --beams 0
sample run --beams 2 --num-samples 3
sample run --beams 2 --top-k 3
sample run --beams 2 --length-penalty 1
sample run --length-penalty 1
sample run --temperature -1
sample run --temperature nan
sample run --top-k 0
sample run --top-p 0
sample run --top-p 1.5
sample run --min-p 2
sample run --repetition-penalty 0
sample run --prompt Q
sample run --prompt=
sample run --prompt-file nope
sample run --stop=
sample run --device gpu
sample run --checkpoint bset
evaluate run --split tset
evaluate run --stride 0
evaluate run --stride 17
evaluate run --batch-size 0
evaluate run --precision fp8
evaluate run --strided-inference
evaluate run --calibration --split val
evaluate run --device cuda:9
compare run --out /dev/null/x.html
inside run --out x.gif
train run_dir=run
train run_dir=run resume=true model.n_layer=3 train.steps=9
train run_dir=run resume=true train.seq_len=8 train.steps=9
train run_dir=run resume=true optimizer.lr=0.5 train.steps=9
train run_dir=run resume=true seed=1 train.steps=9
train run_dir=run resume=true tokenizer=bytes train.steps=9
train run_dir=run resume=true data.split=[0.7,0.2,0.1] train.steps=9
""".strip().splitlines()
